export { type Database, type DatabaseFormat, openDatabase } from "./database.ts";
export { KeyValueTable, type KeyValueTableOptions, type Row } from "./key-value-table.ts";
