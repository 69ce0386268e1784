/** The part of the WebAssembly API in use here, which the type declarations of Node.js omit. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { readonly exports: unknown };
};

/**
 * Instantiates a WebAssembly module without imports.
 *
 * @param module the module in base64
 * @returns its exports
 */
export function instantiateWasm(module: string): unknown {
  return new WebAssembly.Instance(new WebAssembly.Module(Buffer.from(module, "base64"))).exports;
}
