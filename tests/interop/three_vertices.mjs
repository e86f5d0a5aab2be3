// Play a GLB file with three.js in headless Chromium:
//     node three_vertices.mjs CHROMIUM FILE.glb SECONDS,SECONDS,… RESULT.json [PICTURE_%.png]
// RESULT.json gets what three.js made of the file, and per time and mesh the skinned and morphed vertices; the pictures,
// through the file's own camera, are numbered like the times. Everything is served from this folder.

import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';

const [ executablePath, glb, times, result, picture ] = process.argv.slice( 2 );
const here = dirname( fileURLToPath( import.meta.url ) );
const types = { html: 'text/html', js: 'text/javascript', glb: 'model/gltf-binary' };

function locate( path ) {

	if ( path === '/' ) return join( here, 'three_page.html' );
	if ( path === '/file.glb' ) return glb;
	if ( path === '/three_page.js' ) return join( here, 'three_page.js' );
	if ( path.startsWith( '/three/' ) ) return join( here, 'node_modules', normalize( path ) );
	throw new Error( `no such page: ${path}` );

}

const server = createServer( ( request, response ) => {

	try {

		const path = locate( new URL( request.url, 'http://localhost' ).pathname );
		const content = readFileSync( path );
		response.writeHead( 200, { 'Content-Type': types[ path.split( '.' ).pop() ] ?? 'application/octet-stream' } );
		response.end( content );

	} catch ( error ) {

		response.writeHead( 404 );
		response.end( String( error ) );

	}

} );
await new Promise( ( resolve ) => server.listen( 0, '127.0.0.1', resolve ) );

const browser = await chromium.launch( {
	executablePath,
	args: [
		...[ '--no-sandbox', '--disable-quic', '--no-first-run', '--disable-background-networking' ],
		...[ '--disable-component-update', '--disable-sync' ],
		...[ '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader' ],
	],
} );
try {

	const page = await browser.newPage();
	const problems = [];
	page.on( 'pageerror', ( error ) => problems.push( String( error ) ) );
	page.on( 'console', ( message ) => {

		if ( [ 'warning', 'error' ].includes( message.type() ) ) {

			problems.push( message.text() );

		}

	} );
	await page.goto( `http://127.0.0.1:${server.address().port}/` );
	await page.waitForFunction( () => window.player !== undefined, undefined, { timeout: 60000 } );
	const { width, height, facts, clips } = await page.evaluate( () => {

		const { width, height, facts, clips } = window.player;
		return { width, height, facts, clips };

	} );
	await page.setViewportSize( { width, height } );
	const positions = [];
	for ( const [ number, time ] of times.split( ',' ).map( Number ).entries() ) {

		positions.push( await page.evaluate( ( seconds ) => {

			window.player.show( seconds );
			return window.player.positions();

		}, time ) );
		if ( picture ) await page.screenshot( { path: picture.replace( '%', number ) } );

	}

	writeFileSync( result, JSON.stringify( { facts, clips, positions, problems } ) );

} finally {

	await browser.close();
	server.close();

}
