// @discordjs/ws with one listener for every dispatch. Arguments: the gateway's URL, the number of shards.
import { WebSocketManager, WebSocketShardEvents, CompressionMethod } from '@discordjs/ws';
import { createInterface } from 'node:readline';

const [url, shards] = process.argv.slice(2);
let events = 0;
const limit = { total: 100000, remaining: 100000, reset_after: 0, max_concurrency: 1000 };
const manager = new WebSocketManager({
  token: 'bench',
  intents: 0,
  shardCount: Number(shards),
  compression: CompressionMethod.ZlibSync,
  rest: { get: async () => ({ url, shards: Number(shards), session_start_limit: limit }) },
});
manager.on(WebSocketShardEvents.Dispatch, () => { events += 1; });
createInterface({ input: process.stdin }).on('line', () => console.log(JSON.stringify({ events, arrivals: null })));
await manager.connect();
