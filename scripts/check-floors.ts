// Checks that the rooms of packages/castore/src import downwards only: each room may use the floors below its own,
// never its own floor's other rooms nor one above. Exits with status 1 and names each import that does not.
import { globSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";

/** From the ground up. The rooms of one floor do not know each other. */
const FLOORS: readonly (readonly string[])[] = [
  ["gen", "bytes"],
  ["model"],
  ["hash", "chunking", "address", "policy"],
  ["worker"],
  ["compression", "disk"],
  ["objectstore"],
  ["cache"],
  ["blobservice", "directoryservice"],
  ["grpc/transport"],
  ["grpc/client", "grpc/server"],
  ["copy", "import"],
  ["composition"],
  ["index.ts"],
];

const source = fileURLToPath(new URL("../packages/castore/src", import.meta.url));
const rooms = FLOORS.flat();

function roomOf(file: string): string {
  const room = rooms.find((room) => file === room || file.startsWith(`${room}/`));
  if (room === undefined) throw new Error(`${file} is in no room: add it to the floors`);
  return room;
}

const floorOf = (room: string): number => FLOORS.findIndex((floor) => floor.includes(room));

for (const file of globSync("**/*.ts", { cwd: source })) {
  if (file.endsWith(".test.ts")) continue;
  const text = readFileSync(join(source, file), "utf8");
  for (const [, specifier] of text.matchAll(/(?:\bfrom|\bimport\(?)\s*"(\.[^"]*)"/g)) {
    const from = roomOf(file);
    const to = roomOf(relative(source, join(source, dirname(file), specifier!)));
    if (from === to || floorOf(to) < floorOf(from)) continue;
    console.error(`packages/castore/src/${file} imports ${specifier}: ${from} may not use ${to}`);
    process.exitCode = 1;
  }
}
