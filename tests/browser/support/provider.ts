// A real login provider (the certified npm package oidc-provider) on a port of its own.
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

import type { Page } from "@playwright/test";
import Provider from "oidc-provider";

/** What the provider says about a person besides their name, which is also their `sub`. */
interface Account {
  readonly email: string;
  readonly groups: readonly string[];
}

export class LoginProvider {
  /** Seconds for which the provider vouches for who logs in from now on. */
  tokenSeconds = 3600;

  private provider: Provider | null = null;

  private constructor(
    private readonly server: Server,
    /** Another name than the relay's, so that browsers take it for the other site that providers are. */
    readonly issuer: string,
    private readonly accounts: Readonly<Record<string, Account>>,
  ) {
    server.on("request", (request, response) => {
      if (this.provider !== null) {
        void this.provider.callback()(request, response);
        return;
      }
      response.statusCode = 503;
      response.end();
    });
  }

  /** Takes a port and answers nothing but 503 yet: a relay has to know the provider before the provider knows it. */
  static async start(accounts: Record<string, Account>): Promise<LoginProvider> {
    const server = createServer();
    server.listen(0, "localhost");
    await once(server, "listening");
    return new LoginProvider(server, `http://localhost:${(server.address() as AddressInfo).port}`, accounts);
  }

  /** Knows a relay from now on. */
  register(client: string, secret: string, relayUrl: string): void {
    this.provider = new Provider(this.issuer, {
      clients: [
        {
          client_id: client,
          client_secret: secret,
          redirect_uris: [`${relayUrl}/api/login/oidc/callback`],
          response_types: ["code"],
          grant_types: ["authorization_code"],
        },
      ],
      // Claims of scopes come from the userinfo endpoint, as the standard has it.
      claims: { openid: ["sub"], email: ["email", "email_verified"], groups: ["groups"] },
      pkce: { required: () => true },
      ttl: { IdToken: () => this.tokenSeconds, AccessToken: 600, Grant: 3600, Interaction: 3600, Session: 3600 },
      cookies: { keys: ["a key of this test"] },
      findAccount: (_, sub) => {
        const account = this.accounts[sub];
        return account && { accountId: sub, claims: () => ({ sub, ...account, email_verified: true }) };
      },
    });
  }

  /** Does what a person does at the provider, up to the relay's page. */
  static async logIn(page: Page, name: string): Promise<void> {
    await page.getByPlaceholder("Enter any login").fill(name);
    await page.getByPlaceholder("and password").fill("any");
    await page.getByRole("button", { name: "Sign-in" }).click();
    await page.getByRole("button", { name: "Continue" }).click();
  }

  async stop(): Promise<void> {
    this.server.closeAllConnections();
    this.server.close();
    await once(this.server, "close");
  }
}
