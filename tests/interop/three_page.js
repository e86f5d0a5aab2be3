// Loads /file.glb with three.js, as its manual shows, and lets a test play it and look at it.

import * as THREE from 'three';
import { GLTFLoader } from 'three/addons/loaders/GLTFLoader.js';

const gltf = await new GLTFLoader().loadAsync( '/file.glb' );
const camera = gltf.cameras[ 0 ];
const { width, height } = camera.userData;

const renderer = new THREE.WebGLRenderer( { antialias: true, alpha: true } );
renderer.setSize( width, height );
document.body.append( renderer.domElement );

const light = new THREE.DirectionalLight( 0xffffff, 2 );
light.position.set( 0.3, 0.5, 1 );
gltf.scene.add( light, new THREE.HemisphereLight( 0xffffff, 0x887766, 1.5 ) );

// All clips at once, as many programs do.
const mixer = new THREE.AnimationMixer( gltf.scene );
const actions = gltf.animations.map( ( clip ) => mixer.clipAction( clip ) );
for ( const action of actions ) {

	action.setLoop( THREE.LoopOnce );
	action.clampWhenFinished = true;

}

const meshes = [];
gltf.scene.traverse( ( thing ) => {

	if ( thing.isMesh ) meshes.push( thing );

} );

function show( seconds ) {

	for ( const action of actions ) action.reset().play();
	mixer.setTime( seconds );
	gltf.scene.updateMatrixWorld( true );
	renderer.render( gltf.scene, camera );

}

function vertices( mesh ) {

	const point = new THREE.Vector3();
	const count = mesh.geometry.attributes.position.count;
	const values = new Float32Array( 3 * count );
	for ( let i = 0; i < count; i ++ ) {

		mesh.getVertexPosition( i, point ).applyMatrix4( mesh.matrixWorld ).toArray( values, 3 * i );

	}

	return Array.from( values );

}

window.player = {
	width, height, show,
	facts: meshes.map( ( mesh ) => ( {
		name: mesh.name,
		isSkinned: mesh.isSkinnedMesh === true,
		morphs: Object.keys( mesh.morphTargetDictionary ?? {} ),
		bones: mesh.skeleton.bones.map( ( bone ) => bone.name ),
		hasTexture: mesh.material.map !== null,
		map: Array.from( mesh.geometry.attributes._vertex.array ),
	} ) ),
	clips: gltf.animations.map( ( clip ) => ( { name: clip.name, tracks: clip.tracks.length, seconds: clip.duration } ) ),
	positions: () => meshes.map( vertices ),
};
