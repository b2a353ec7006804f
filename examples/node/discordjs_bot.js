// A discord.js bot behind the façade (docs/facade.md): start it, kill it, start it again, and it has missed no message.
// Usage: FACADE_TOKEN=$(cat main.token) node discordjs_bot.js http://127.0.0.1:7000
// It is an ES module: copied alone, name it discordjs_bot.mjs, or put "type": "module" into your package.json.
import { Client, Events, GatewayIntentBits } from "discord.js";

const { Guilds, GuildMessages, MessageContent } = GatewayIntentBits;
const url = process.argv[2] ?? "http://127.0.0.1:7000";
const client = new Client({ intents: [Guilds, GuildMessages, MessageContent], rest: { api: `${url}/api` } });

client.once(Events.ClientReady, (ready) => console.log(`ready as ${ready.user.tag} in ${ready.guilds.cache.size} guilds`));
client.on(Events.MessageCreate, (message) => console.log(`message ${message.id}: ${message.content}`));
client.on(Events.ShardResume, (shard, replayed) => console.log(`resumed shard ${shard}, ${replayed} events replayed`));
client.on(Events.Error, (error) => console.error(error));

await client.login(process.env.FACADE_TOKEN);
