// Photograph a page in headless Chromium:
//     node screenshot.mjs CHROMIUM URL PICTURE.png WIDTH HEIGHT SECONDS [SELECTOR]
// after so many seconds, without the elements that the CSS selector names.

import { chromium } from 'playwright-core';

const [ executablePath, url, picture, width, height, seconds, hidden ] = process.argv.slice( 2 );
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
	if ( hidden ) await page.addStyleTag( { content: `${hidden} { display: none !important; }` } );
	await page.screenshot( { path: picture } );

} finally {

	await browser.close();

}
