export { type LocalNixOptions, LocalNixStore } from "./local-nix-store.ts";
