package oidctest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Session is one browser signed in at the provider.
type Session struct {
	SID      string
	Subject  string
	AuthTime time.Time
	Clients  []string // that were signed in to with it
}

// Delivery is what became of one logout token.
type Delivery struct {
	ClientID string
	URI      string
	Token    string
	Status   int    // 0 when no answer came
	Body     string // the first bytes of the answer
	Err      error
	Took     time.Duration
}

// OK reports whether the relying party confirmed the logout (Back-Channel Logout §2.8).
func (d *Delivery) OK() bool { return d.Status == http.StatusOK || d.Status == http.StatusNoContent }

// Sessions returns who is signed in, the oldest first.
func (p *Provider) Sessions() []Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]Session, 0, len(p.sessions))
	for _, s := range p.sessions {
		c := *s
		c.Clients = slices.Clone(s.Clients)
		list = append(list, c)
	}
	slices.SortFunc(list, func(a, b Session) int {
		return cmp.Or(a.AuthTime.Compare(b.AuthTime), cmp.Compare(a.SID, b.SID))
	})
	return list
}

// Deliveries returns every logout token that was sent, in the order in which the answers came.
func (p *Provider) Deliveries() []Delivery {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.deliveries)
}

// browserSession finds the session of a browser.
func (p *Provider) browserSession(r *http.Request) (Session, bool) {
	ck, err := r.Cookie(p.cfg.CookieName)
	if err != nil {
		return Session{}, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sessions[p.browsers[ck.Value]]
	if s == nil {
		return Session{}, false
	}
	return *s, true
}

// BrowserSession returns the session of a browser, for a page of one's own that says who is signed in.
func (p *Provider) BrowserSession(r *http.Request) (Session, bool) { return p.browserSession(r) }

// openSession signs a browser in. The same person keeps their session, and so their sid; another one starts a new one.
func (p *Provider) openSession(w http.ResponseWriter, r *http.Request, sub string) Session {
	old, had := p.browserSession(r)
	now := p.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if live := p.sessions[old.SID]; had && live != nil {
		if live.Subject == sub {
			live.AuthTime = now
			return *live
		}
		delete(p.sessions, old.SID)
	}
	s := &Session{SID: random(), Subject: sub, AuthTime: now}
	cookie := random()
	p.sessions[s.SID] = s
	p.browsers[cookie] = s.SID
	http.SetCookie(w, &http.Cookie{
		Name: p.cfg.CookieName, Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: strings.HasPrefix(p.cfg.Issuer, "https:"),
	})
	return *s
}

// Logout ends sessions as somebody at the provider would: the one with this sid, or all of this subject. Every client
// that they reached is told, all at once; Logout returns when each has answered or taken too long. A session ended by
// its sid is told with sub and sid, a subject with sub alone.
func (p *Provider) Logout(ctx context.Context, sub, sid string) []Delivery {
	var to []telling
	p.mu.Lock()
	for id, s := range p.sessions {
		if (sid == "" || id != sid) && (sid != "" || s.Subject != sub) {
			continue
		}
		for _, c := range s.Clients {
			t := telling{c, s.Subject, sid}
			if !slices.Contains(to, t) {
				to = append(to, t)
			}
		}
		delete(p.sessions, id)
		p.forget(func(g *grant) bool { return g.sid == id && !g.offline })
	}
	p.mu.Unlock()
	p.cfg.OnChange()
	return p.tell(ctx, to)
}

type telling struct{ client, sub, sid string }

// tell sends logout tokens, in parallel (Back-Channel Logout §2.3).
func (p *Provider) tell(ctx context.Context, to []telling) []Delivery {
	deliveries := make([]Delivery, len(to))
	var wg sync.WaitGroup
	for i, t := range to {
		c, ok := p.client(t.client)
		if !ok || c.BackchannelLogoutURI == "" {
			continue
		}
		if c.NoSID {
			t.sid = ""
		}
		wg.Go(func() {
			var lies []func(*JWT)
			if lie := p.mangled().LogoutToken; lie != nil {
				lies = append(lies, lie)
			}
			d := p.Send(ctx, c.BackchannelLogoutURI, p.SignLogoutToken(t.client, t.sub, t.sid, lies...))
			d.ClientID = t.client
			deliveries[i] = d
			p.mu.Lock()
			p.deliveries = append(p.deliveries, d)
			p.mu.Unlock()
			p.cfg.OnDelivery(d)
		})
	}
	wg.Wait()
	return slices.DeleteFunc(deliveries, func(d Delivery) bool { return d.URI == "" })
}

// Send posts a logout token (Back-Channel Logout §2.5), once.
func (p *Provider) Send(ctx context.Context, uri, token string) (d Delivery) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.SendTimeout)
	defer cancel()
	d = Delivery{URI: uri, Token: token}
	began := time.Now()
	defer func() { d.Took = time.Since(began) }()
	form := url.Values{"logout_token": {token}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, strings.NewReader(form))
	if err != nil {
		d.Err = err
		return d
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := p.sender.Do(r)
	if err != nil {
		d.Err = err
		return d
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	d.Status, d.Body, d.Err = resp.StatusCode, string(body), err
	return d
}

// serveEndSession is the end_session endpoint (RP-Initiated Logout §2). The cookie decides whose session ends; without
// one the sid of id_token_hint does. Who comes without a hint is asked first (§2: the person must agree).
func (p *Provider) serveEndSession(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	q := r.Form
	hint := q.Get("id_token_hint")
	var claims struct {
		Iss, Sub, SID string
		Aud           any
	}
	if hint != "" && (!p.signedHere(hint, &claims) || claims.Iss != p.cfg.Issuer) {
		http.Error(w, "id_token_hint is not an ID Token of this provider", http.StatusBadRequest)
		return
	}
	back := q.Get("post_logout_redirect_uri")
	clientID := q.Get("client_id")
	if aud, ok := claims.Aud.(string); ok {
		if clientID != "" && clientID != aud {
			http.Error(w, "client_id is not that of id_token_hint", http.StatusBadRequest)
			return
		}
		clientID = aud
	}
	c, known := p.client(clientID)
	if back != "" && (!known || !slices.Contains(c.PostLogoutRedirectURIs, back)) {
		http.Error(w, "post_logout_redirect_uri is not registered", http.StatusBadRequest) // and nothing ends: §4
		return
	}
	if hint == "" && r.Method != http.MethodPost {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = confirmPage().Execute(w, q)
		return
	}
	s, ok := p.browserSession(r)
	if !ok {
		s.SID, ok = claims.SID, claims.SID != ""
	}
	if ok {
		p.Logout(context.WithoutCancel(r.Context()), "", s.SID)
	}
	http.SetCookie(w, &http.Cookie{Name: p.cfg.CookieName, Path: "/", MaxAge: -1})
	if back == "" {
		p.cfg.LoggedOutPage(w, r)
		return
	}
	u, err := url.Parse(back)
	if err != nil {
		http.Error(w, "post_logout_redirect_uri cannot be read", http.StatusBadRequest)
		return
	}
	if state := q.Get("state"); state != "" {
		all := u.Query()
		all.Set("state", state)
		u.RawQuery = all.Encode()
	}
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}

// signedHere reports whether a token is signed by one of the provider's keys, and reads its claims. An encrypted one
// cannot be read here.
func (p *Provider) signedHere(raw string, claims any) bool {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return false
	}
	var header struct{ Kid, Alg string }
	h, err1 := base64.RawURLEncoding.DecodeString(parts[0])
	payload, err2 := base64.RawURLEncoding.DecodeString(parts[1])
	sig, err3 := base64.RawURLEncoding.DecodeString(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || json.Unmarshal(h, &header) != nil {
		return false
	}
	p.mu.Lock()
	i := slices.IndexFunc(p.keys, func(k *Key) bool { return k.KID == header.Kid && k.Alg == header.Alg })
	var k *Key
	if i >= 0 {
		k = p.keys[i]
	}
	p.mu.Unlock()
	return k != nil && k.verifies(raw[:len(parts[0])+1+len(parts[1])], sig) &&
		json.NewDecoder(bytes.NewReader(payload)).Decode(claims) == nil
}

func confirmPage() *template.Template {
	return template.Must(template.New("confirm").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Sign out</title>
<h1>Sign out?</h1>
<form method="post">
{{range $name, $values := .}}{{range $values}}<input type="hidden" name="{{$name}}" value="{{.}}">
{{end}}{{end}}<button>Sign out</button>
</form></html>
`))
}
