/** How the bundles of clients get at the modules of Node.js. */
import type { Plugin } from "rolldown";

/** What a bundle imports from one: the object by a name, some of its properties, or both. */
const IMPORT =
  /^import (?:\* as )?(?<object>[\w$]+)?(?:, )?(?:\{ (?<names>.+) \})? from (?<from>"node:[^"]+");$/gm;

/**
 * Takes what a chunk imports from modules of Node.js out of the objects that `require` would give. For an `import`, Node.js
 * reads each property of the module, and some load others: `promises` of `node:fs` loads readline, `webcrypto` of
 * `node:crypto` all of its algorithms. That takes a fifth of the start of a program, and of each thread.
 */
export const builtinModules: Plugin = {
  name: "builtin-modules",
  renderChunk: (code) =>
    code.replaceAll(IMPORT, (...match) => {
      const { object, names, from } = match.at(-1) as Record<string, string | undefined>;
      const found = `process.getBuiltinModule(${from})`;
      const taken = names && `{ ${names.replaceAll(" as ", ": ")} }`;
      if (object === undefined) return `const ${taken} = ${found};`;
      return `const ${object} = ${found}${taken ? `, ${taken} = ${object}` : ""};`;
    }),
};
