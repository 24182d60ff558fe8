// Reads a channel by the npm package `eventsource`: node events.js PACKAGE URL. Prints each event as a line of JSON.
const found = require(process.argv[2]);
const EventSource = found.EventSource || found; // version 2 exports the class itself
const source = new EventSource(process.argv[3]);
for (const kind of ['position', 'message', 'disconnect', 'unrecovered']) {
  source.addEventListener(kind, (event) => console.log(JSON.stringify({ kind, data: JSON.parse(event.data) })));
}
source.onerror = () => {
  if (source.readyState === 2) console.log(JSON.stringify({ kind: 'gave up' }));
};
