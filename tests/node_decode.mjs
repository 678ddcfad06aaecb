// Reads files, a line of base64 each, with the decoder of gaussjax/web; writes a line of JSON for each.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { decode, FormatError } = await import(pathToFileURL(process.argv[2]));
const options = JSON.parse(process.argv[3] ?? "{}");

for await (const line of createInterface({ input: process.stdin })) {
  const began = performance.now();
  let out;
  try {
    const { codes, sizes, whole, bits, metadata, ...image } = decode(Buffer.from(line, "base64"), options);
    const lists = {};
    for (const group of [codes, image])
      for (const [name, value] of Object.entries(group))
        if (ArrayBuffer.isView(value)) lists[name] = [...value];
    out = { ...image, ...lists, sizes, whole, bits, metadata, codeColors: [...codes.colors] };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    out = { error: error.message };
  }
  console.log(JSON.stringify({ ...out, ms: performance.now() - began }));
}
