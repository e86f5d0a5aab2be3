// Photograph a page in headless Chromium:
//     node screenshot.mjs CHROMIUM URL PICTURE.png WIDTH HEIGHT SECONDS [KEYS,KEYS,…]
// after so many seconds and, where keys are named, once more as long after they were pressed.

import { chromium } from 'playwright-core';

const [ executablePath, url, picture, width, height, seconds, keys ] = process.argv.slice( 2 );
const browser = await chromium.launch( {
	executablePath,
	args: [
		...[ '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking' ],
		...[ '--disable-component-update', '--disable-sync' ],
		...[ '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader' ],
	],
} );
try {

	const page = await browser.newPage( { viewport: { width: Number( width ), height: Number( height ) } } );
	await page.goto( url );
	await page.waitForTimeout( 1000 * Number( seconds ) );
	if ( keys ) {

		for ( const key of keys.split( ',' ) ) await page.keyboard.press( key );
		await page.waitForTimeout( 1000 * Number( seconds ) );

	}

	await page.screenshot( { path: picture } );

} finally {

	await browser.close();

}
