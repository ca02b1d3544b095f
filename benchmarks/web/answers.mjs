// node answers.mjs PACKAGE ROWS.json: the graph of a package in onnxruntime-web (WebAssembly), one row after the other.
// ROWS.json holds lists of token ids; prints a list of outputs. Needs `npm install onnxruntime-web` in this folder or above.
import fs from 'node:fs';
import * as ort from 'onnxruntime-web';

const [folder, rows] = process.argv.slice(2);
const manifest = JSON.parse(fs.readFileSync(`${folder}/manifest.json`));
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(fs.readFileSync(`${folder}/${manifest.model}`));
const outputs = [];
for (const ids of JSON.parse(fs.readFileSync(rows))) {
  const feeds = {};
  for (const name of manifest.inputs) {
    const values = name === 'input_ids' ? ids : ids.map(() => (name === 'attention_mask' ? 1 : 0));
    feeds[name] = new ort.Tensor('int64', BigInt64Array.from(values.map(BigInt)), [1, ids.length]);
  }
  outputs.push(Array.from((await session.run(feeds))[manifest.output].data));
}
console.log(JSON.stringify(outputs));
