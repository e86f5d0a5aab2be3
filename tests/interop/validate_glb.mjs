// Ask the Khronos glTF validator about GLB files: node validate_glb.mjs FILE…
// Prints one JSON object: the validator's report per file.

import { readFileSync } from 'node:fs';
import validator from 'gltf-validator';

const reports = {};
for ( const path of process.argv.slice( 2 ) ) {

	reports[ path ] = await validator.validateBytes( new Uint8Array( readFileSync( path ) ), { maxIssues: 0 } );

}
process.stdout.write( JSON.stringify( reports ) );
