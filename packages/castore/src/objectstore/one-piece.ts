/** Contents that are in memory. */
export async function* onePiece(data: Uint8Array): AsyncGenerator<Uint8Array> {
  if (data.length > 0) yield data;
}
