package oidctest

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// serveToken is the token endpoint (RFC 6749 §4.1.3 and §6, RFC 7636 §4.6).
func (p *Provider) serveToken(w http.ResponseWriter, r *http.Request) {
	c, ok := p.authenticate(w, r)
	if !ok {
		return
	}
	var g *grant
	kind := r.PostForm.Get("grant_type")
	switch kind {
	case "authorization_code":
		g = p.redeem(r.PostForm, c)
	case "refresh_token":
		g = p.rotate(r.PostForm, c)
	default:
		writeError(w, http.StatusBadRequest, "unsupported_grant_type", "authorization_code and refresh_token are known")
		return
	}
	if g == nil {
		writeError(w, http.StatusBadRequest, "invalid_grant", "unknown, used, run out, or not for this client")
		return
	}
	m := p.mangled()
	now := p.cfg.Now()
	at, rt := random()+random(), random()+random()
	live := *g
	p.mu.Lock()
	access := live
	access.expires = now.Add(p.cfg.AccessTokenTTL)
	p.access[at] = &access
	if !c.NoRefreshToken {
		p.refresh[rt] = &live
	}
	p.mu.Unlock()
	doc := map[string]any{
		"access_token": at,
		"token_type":   "Bearer",
		"expires_in":   int(p.cfg.AccessTokenTTL.Seconds()),
		"scope":        g.scope,
	}
	if !c.NoRefreshToken {
		doc["refresh_token"] = rt
	}
	forIDToken := live
	if kind == "refresh_token" {
		forIDToken.nonce = "" // Core §12.2: it should have none
	}
	var lies []func(*JWT)
	if m.IDToken != nil {
		lies = append(lies, m.IDToken)
	}
	doc["id_token"] = p.signIDToken(&forIDToken, at, lies...)
	if m.Tokens != nil {
		m.Tokens(kind, doc)
	}
	writeJSON(w, http.StatusOK, doc)
}

// authenticate finds out which client asks (RFC 6749 §2.3), and answers if it cannot.
func (p *Provider) authenticate(w http.ResponseWriter, r *http.Request) (Client, bool) {
	deny := func(why string) (Client, bool) {
		w.Header().Set("WWW-Authenticate", `Basic realm="oidctest"`)
		writeError(w, http.StatusUnauthorized, "invalid_client", why)
		return Client{}, false
	}
	if r.Method != http.MethodPost || r.ParseForm() != nil {
		writeError(w, http.StatusBadRequest, "invalid_request", "this takes a form by POST")
		return Client{}, false
	}
	id, secret, method := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret"), "none"
	if secret != "" {
		method = "client_secret_post"
	}
	if user, password, ok := r.BasicAuth(); ok {
		if method != "none" {
			return deny("two ways of authentication at once")
		}
		var err1, err2 error
		id, err1 = url.QueryUnescape(user)
		secret, err2 = url.QueryUnescape(password)
		if err1 != nil || err2 != nil {
			return deny("the credentials are not form-encoded")
		}
		method = "client_secret_basic"
	}
	c, ok := p.client(id)
	switch {
	case !ok:
		return deny("unknown client")
	case c.Secret == "" && method != "none":
		return deny("this client is public")
	case c.Secret != "" && method == "none":
		return deny("this client must authenticate")
	case c.AuthMethod != "" && c.AuthMethod != method:
		return deny("this client is registered for " + c.AuthMethod)
	case subtle.ConstantTimeCompare([]byte(c.Secret), []byte(secret)) != 1:
		return deny("wrong secret")
	}
	return c, true
}

// redeem spends a code; nil when it is not worth anything.
func (p *Provider) redeem(form url.Values, c Client) *grant {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.codes[form.Get("code")]
	if g == nil || g.client != c.ID {
		return nil
	}
	if g.used { // RFC 6749 §4.1.2: what came of it is revoked
		p.forget(func(o *grant) bool { return o.sid == g.sid && o.client == g.client })
		return nil
	}
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	switch {
	case !p.cfg.Now().Before(g.expires),
		g.redirect != form.Get("redirect_uri"),
		base64.RawURLEncoding.EncodeToString(sum[:]) != g.challenge,
		p.sessions[g.sid] == nil: // signed out meanwhile
		return nil
	}
	g.used = true
	spent := *g
	spent.used = false
	return &spent
}

// rotate spends a refresh token; nil when it is not worth anything. One that was spent already ends all that came of it
// (RFC 9700 §4.14.2).
func (p *Provider) rotate(form url.Values, c Client) *grant {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.refresh[form.Get("refresh_token")]
	switch {
	case g == nil || g.client != c.ID:
		return nil
	case g.used:
		p.forget(func(o *grant) bool { return o.sid == g.sid && o.client == g.client })
		return nil
	case p.sessions[g.sid] == nil && !g.offline:
		return nil
	}
	g.used = true
	spent := *g
	spent.used = false
	return &spent
}

// forget drops grants. p.mu is held.
func (p *Provider) forget(which func(*grant) bool) {
	drop := func(_ string, g *grant) bool { return which(g) }
	maps.DeleteFunc(p.access, drop)
	maps.DeleteFunc(p.refresh, drop)
}

// serveUserinfo is the userinfo endpoint (Core §5.3).
func (p *Provider) serveUserinfo(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	p.mu.Lock()
	g := p.access[token]
	m := p.mangle
	p.mu.Unlock()
	if !ok || g == nil || !p.cfg.Now().Before(g.expires) {
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	u, _ := p.user(g.subject)
	claims := map[string]any{"sub": g.subject}
	scopes := strings.Fields(g.scope)
	if slices.Contains(scopes, "profile") {
		claims["name"] = u.Name
		claims["preferred_username"] = u.Subject
		maps.Copy(claims, u.Claims)
	}
	if slices.Contains(scopes, "email") && u.Email != "" {
		claims["email"] = u.Email
		claims["email_verified"] = true
	}
	c, _ := p.client(g.client)
	if c.SignedUserinfo {
		claims["iss"], claims["aud"] = p.cfg.Issuer, g.client
	}
	if m.Userinfo != nil {
		m.Userinfo(claims)
	}
	if !c.SignedUserinfo && c.UserinfoEncryption == nil {
		writeJSON(w, http.StatusOK, claims)
		return
	}
	var body string
	if c.SignedUserinfo {
		body = Sign(p.newJWT(cmp.Or(c.UserinfoSigningAlg, p.algOf(c)), "", claims))
	} else {
		data, _ := json.Marshal(claims)
		body = string(data)
	}
	if c.UserinfoEncryption != nil {
		body = Encrypt(body, c.UserinfoEncryption)
	}
	w.Header().Set("Content-Type", "application/jwt")
	_, _ = w.Write([]byte(body))
}

// serveRevoke is the revocation endpoint (RFC 7009 §2).
func (p *Provider) serveRevoke(w http.ResponseWriter, r *http.Request) {
	c, ok := p.authenticate(w, r)
	if !ok {
		return
	}
	token := r.PostForm.Get("token")
	p.mu.Lock()
	defer p.mu.Unlock()
	if g := p.refresh[token]; g != nil && g.client == c.ID {
		p.forget(func(o *grant) bool { return o.client == g.client && o.sid == g.sid })
	}
	if g := p.access[token]; g != nil && g.client == c.ID {
		delete(p.access, token)
	}
	w.WriteHeader(http.StatusOK)
}

// Alive reports whether a refresh token would still be taken.
func (p *Provider) Alive(refreshToken string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	g := p.refresh[refreshToken]
	return g != nil && !g.used && (g.offline || p.sessions[g.sid] != nil)
}

// serveIntrospect is the introspection endpoint (RFC 7662), for access tokens.
func (p *Provider) serveIntrospect(w http.ResponseWriter, r *http.Request) {
	c, ok := p.authenticate(w, r)
	if !ok {
		return
	}
	p.mu.Lock()
	g := p.access[r.PostForm.Get("token")]
	p.mu.Unlock()
	doc := map[string]any{"active": false}
	if c.Secret != "" && g != nil && g.client == c.ID && p.cfg.Now().Before(g.expires) {
		doc = map[string]any{"active": true, "sub": g.subject, "client_id": g.client, "exp": g.expires.Unix()}
	}
	writeJSON(w, http.StatusOK, doc)
}
