export { type LocalNixOptions, LocalNixStore } from "./local-nix-store.ts";
export { ReferenceGraph } from "./reference-graph.ts";
