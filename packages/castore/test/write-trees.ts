// Puts trees into a SQLite database until it is killed, and prints the number of each stored tree. Argument: the file.
import { SqliteDirectoryService } from "../src/index.ts";
import { putTree, treeOf } from "./tree.ts";

const service = await SqliteDirectoryService.open({ path: process.argv[2]! });
for (let i = 0; ; i++) {
  await putTree(service, treeOf(`${i}`));
  process.send?.(i);
}
