// Draws without a GPU: a line of JSON {data, view, width, height} for each picture; writes a line of base64 for each.

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { decode, rasterize } = await import(pathToFileURL(process.argv[2]));

for await (const line of createInterface({ input: process.stdin })) {
  const { data, ...how } = JSON.parse(line);
  console.log(Buffer.from(rasterize(decode(Buffer.from(data, "base64")), how)).toString("base64"));
}
