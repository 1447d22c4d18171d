// An OpenID Connect provider, https://github.com/panva/node-oidc-provider, with its own log-in pages for development:
// they accept any password. The argument is a JSON file; its accounts are read at each request.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import Provider from "oidc-provider";

const file = process.argv[2];
const { issuer, host, port, certificate, client } = JSON.parse(readFileSync(file));

const provider = new Provider(issuer, {
  clients: [client],
  scopes: ["openid", "email", "profile", "groups"],
  claims: {
    openid: ["sub"],
    email: ["email"],
    profile: ["preferred_username", "given_name", "family_name"],
    groups: ["groups"],
  },
  cookies: { keys: ["of the tests"] },
  pkce: { required: () => true },
  findAccount: (_, name) => {
    const groups = JSON.parse(readFileSync(file)).accounts[name];
    const claims = () => ({
      sub: name,
      preferred_username: name,
      given_name: name,
      family_name: "of the tests",
      email: `${name}@example.com`,
      groups,
    });
    return groups && { accountId: name, claims };
  },
});
createServer({ key: certificate, cert: certificate }, provider.callback()).listen(port, host);
