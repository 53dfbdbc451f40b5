package oidc

// Find returns the provider with an issuer and, there, a client, or nil if none of all is that. A name is not enough to
// find the provider of a session: a configuration may give the name to another provider later, which must not be shown
// the tokens of this one.
func Find(all []*Provider, issuer, clientID string) *Provider {
	for _, p := range all {
		if p.cfg.Issuer == issuer && p.cfg.ClientID == clientID {
			return p
		}
	}
	return nil
}
