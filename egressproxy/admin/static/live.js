// The live tail: new rows on top of a table while it is open. Without this file every page works.
//
// A table says where it listens: <table data-live="/review/live?…">, its rows are made from
// <template> inside it, cells by data-cell. What peers chose comes as JSON and is set as text.
"use strict";
