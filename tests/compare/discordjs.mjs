// @discordjs/ws that writes the number of each event to a file. Arguments: the gateway's URL, the token, the file.
import { WebSocketManager, WebSocketShardEvents, CompressionMethod } from '@discordjs/ws';
import { appendFileSync } from 'node:fs';

const [url, token, file] = process.argv.slice(2);
const limit = { total: 1000, remaining: 1000, reset_after: 0, max_concurrency: 1 };
const manager = new WebSocketManager({
  token,
  intents: 0,
  shardCount: 1,
  compression: CompressionMethod.ZlibSync,
  rest: { get: async () => ({ url, shards: 1, session_start_limit: limit }) },
});
manager.on(WebSocketShardEvents.Dispatch, (payload) => {
  const { d } = payload.data ?? payload;
  if (d?.number !== undefined) appendFileSync(file, `${d.number}\n`);
});
manager.on(WebSocketShardEvents.Error, () => {});
process.on('unhandledRejection', () => {});
await manager.connect();
