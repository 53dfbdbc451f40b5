package login

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Handler signs people in. Site, Providers, Sessions and Ring are required.
type Handler struct {
	Site *web.Site
	// Providers is who can be signed in with. The first has the redirect URI without a name; see [Handler.RedirectURI].
	Providers []*oidc.Provider
	Sessions  *session.Manager
	Ring      *keyring.Keyring // seals the attempts
	Cookie    session.Cookie

	// OnLogin is the app's own say, after all checks: it may add to the claims, and refuses by an error. The person
	// hears the text of a [web.Fail], and of any other error nothing. What the ID Token says about itself (iss, sub,
	// sid, …) cannot be changed.
	OnLogin func(ctx context.Context, claims map[string]any) error

	Home string // where a login without return_to leads; default "/"

	flights  singleflight.Group // exchanges under way in this process
	onceLong sync.Once
	long     *rate.Limiter // of return paths that go into the store
}

func (h *Handler) home() string { return cmp.Or(h.Home, "/") }

// Mount registers the routes of this room.
func (h *Handler) Mount(mux *http.ServeMux) {
	mux.Handle(h.Site.Path("login"), h.Site.Page(opened(h.start), http.MethodGet))
	for _, p := range h.Providers {
		mux.Handle(h.Site.Path(h.callbackRoute(p.Name())), h.Site.Page(
			opened(func(w http.ResponseWriter, r *http.Request) error { return h.callback(w, r, p) }), http.MethodGet))
	}
}

// opened keeps a look ahead from beginning a login, or using one up, for a page that nobody has opened. Browsers throw
// away what is answered with an error, and ask again when somebody does.
func opened(h web.HandlerFunc) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if web.IsPrefetch(r) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return nil
		}
		return h(w, r)
	}
}

// RedirectURI returns the redirect URI to register at the provider of that name. Each provider has one of its own, so
// that an answer of one cannot be passed off as another's (RFC 9700 §4.4.2), and adding a provider changes none.
func (h *Handler) RedirectURI(provider string) string {
	return h.Site.Absolute(h.callbackRoute(provider))
}

func (h *Handler) callbackRoute(provider string) string {
	if len(h.Providers) > 0 && h.Providers[0].Name() == provider {
		return "callback"
	}
	return "callback/" + provider
}

// request is what a link to the login route can ask for.
type request struct {
	provider  string
	returnTo  string
	loginHint string
	prompt    string
	silent    bool
}

// start begins the code flow (Core §3.1.2.1), or asks which provider it shall be.
func (h *Handler) start(w http.ResponseWriter, r *http.Request) error {
	q, err := h.parse(r)
	if err != nil {
		return err
	}
	if q.provider == "" && len(h.Providers) > 1 {
		if q.silent {
			return refuse(http.StatusBadRequest, "A silent sign-in has to name its provider.", nil)
		}
		h.choose(w, r, q)
		return nil
	}
	p := h.find(q.provider)
	if p == nil {
		return refuse(http.StatusBadRequest, "This site knows no such provider to sign in with.", nil)
	}
	if m, err := p.Metadata(r.Context()); err == nil { // else AuthURL says what is wrong
		q.prompt = offered(q.prompt, m.Prompts)
	}
	a := attempt{ReturnTo: q.returnTo, Provider: p.Name(), Silent: q.silent, Prompt: q.prompt}
	if a.Began, a.Era, err = h.Sessions.Begin(r.Context()); err != nil {
		return h.kept(p, &a, err)
	}
	cookie, err := h.begin(r, &a)
	if err != nil {
		return err
	}
	to, err := p.AuthURL(r.Context(), oidc.AuthRequest{
		RedirectURI: h.RedirectURI(p.Name()), State: a.State, Nonce: a.Nonce, Verifier: a.Verifier,
		LoginHint: q.loginHint, Prompt: q.prompt,
	})
	if err != nil {
		return h.quietly(w, r, &a, h.asked(p, &a, err))
	}
	h.makeRoom(w, r, cookieSize(cookie))
	http.SetCookie(w, cookie)
	h.Site.Event(r, slog.LevelDebug, "login_started", slog.String("provider", p.Name()), slog.Bool("silent", q.silent))
	redirect(w, to)
	return nil
}

// parse reads what a link asks for; whoever made it may be a stranger.
func (h *Handler) parse(r *http.Request) (request, error) {
	values, err := parseQuery(r.URL.RawQuery)
	if err != nil {
		return request{}, refuse(http.StatusBadRequest, "The address of this page is malformed.", err)
	}
	q := request{provider: values.Get("provider"), returnTo: h.returnTo(r, values.Get("return_to")),
		loginHint: values.Get("login_hint")}
	if iss := values.Get("iss"); q.provider == "" && iss != "" { // as in Core §4
		i := slices.IndexFunc(h.Providers, func(p *oidc.Provider) bool { return p.Config().Issuer == iss })
		if i < 0 {
			return request{}, refuse(http.StatusBadRequest, "This site knows no such provider to sign in with.", nil)
		}
		q.provider = h.Providers[i].Name()
	}
	if len(q.loginHint) > 256 || !utf8.ValidString(q.loginHint) ||
		strings.ContainsFunc(q.loginHint, unicode.IsControl) {
		return request{}, refuse(http.StatusBadRequest, "The login_hint is too long or malformed.", nil)
	}
	switch values.Get("silent") {
	case "", "false":
	case "true":
		q.silent = true
	default:
		return request{}, refuse(http.StatusBadRequest, "silent is true or false.", nil)
	}
	prompts := strings.Fields(values.Get("prompt"))
	for _, p := range prompts {
		switch p {
		case "login", "consent", "select_account":
		case "none":
			if len(prompts) > 1 { // Core §3.1.2.1
				return request{}, refuse(http.StatusBadRequest, "prompt=none stands alone.", nil)
			}
			q.silent = true
		default:
			return request{}, refuse(http.StatusBadRequest, "prompt is login, consent, select_account or none.", nil)
		}
	}
	if q.prompt = strings.Join(prompts, " "); q.silent {
		if q.prompt != "" && q.prompt != "none" {
			return request{}, refuse(http.StatusBadRequest, "A silent sign-in cannot prompt.", nil)
		}
		q.prompt = "none"
	}
	return q, nil
}

// selectAccount is optional for providers, and login is not (Core §15.1): it too lets the person say who they are.
const selectAccount = "select_account"

// offered asks a provider that says which prompts it has, and does not have select_account, for login instead.
func offered(prompt string, has []string) string {
	if len(has) == 0 || slices.Contains(has, selectAccount) {
		return prompt
	}
	return withLogin(prompt)
}

// withLogin is a prompt with login in the place of select_account.
func withLogin(prompt string) string {
	words := strings.Fields(prompt)
	i := slices.Index(words, selectAccount)
	switch {
	case i < 0:
		return prompt
	case slices.Contains(words, "login"):
		words = slices.Delete(words, i, i+1)
	default:
		words[i] = "login"
	}
	return strings.Join(words, " ")
}

// parseQuery is [url.ParseQuery] as browsers have it: a semicolon is a character like any other.
func parseQuery(raw string) (url.Values, error) {
	return url.ParseQuery(strings.ReplaceAll(raw, ";", "%3B"))
}

// returnTo keeps where to go after the login: on this site, and not to a page that would begin or end a session again.
func (h *Handler) returnTo(r *http.Request, raw string) string {
	if raw == "" {
		return h.home()
	}
	to, err := h.Site.ParseReturnTo(raw)
	if err != nil {
		h.returnLost(r, err)
		return "/"
	}
	path := web.DecodedPath(to)
	for _, route := range []string{"login", "callback", "logout", "frontchannel-logout"} {
		if own := h.Site.Path(route); path == own || strings.HasPrefix(path, own+"/") {
			return h.home()
		}
	}
	return to
}

func (h *Handler) find(name string) *oidc.Provider {
	if name == "" && len(h.Providers) == 1 {
		return h.Providers[0]
	}
	for _, p := range h.Providers {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// link returns the address that starts a login.
func (h *Handler) link(q request) string {
	values := url.Values{}
	set := func(name, value string) {
		if value != "" {
			values.Set(name, value)
		}
	}
	set("provider", q.provider)
	set("return_to", q.returnTo)
	set("login_hint", q.loginHint)
	set("prompt", q.prompt)
	return h.Site.Path("login") + "?" + values.Encode()
}

// choose asks which provider it shall be.
func (h *Handler) choose(w http.ResponseWriter, r *http.Request, q request) {
	m := web.Message{Title: "Sign in", Text: "Choose how you want to sign in.", Choice: true}
	for _, p := range h.Providers {
		q.provider = p.Name()
		m.Actions = append(m.Actions, web.Action{Label: label(p), Href: h.link(q)})
	}
	h.Site.Render(w, r, http.StatusOK, m)
}

// label is what people know a provider by.
func label(p *oidc.Provider) string {
	c := p.Config()
	if c.Label == "" {
		if u, err := url.Parse(c.Issuer); err == nil {
			return u.Host
		}
	}
	return c.Label
}

// again is the button that starts the same login anew.
func (h *Handler) again(a *attempt) []web.Action {
	return []web.Action{{Label: "Sign in again", Href: h.link(request{provider: a.Provider, returnTo: a.ReturnTo})}}
}

// asked says what it means that the provider was asked and err came of it.
func (h *Handler) asked(p *oidc.Provider, a *attempt, err error) error {
	f := &web.Failure{Event: "login", Err: err, Attrs: []slog.Attr{slog.String("provider", p.Name())}}
	check, failed := errors.AsType[*oidc.Error](err)
	switch {
	case errors.Is(err, oidc.ErrUnavailable):
		f.Status, f.Attrs = http.StatusServiceUnavailable, append(f.Attrs, slog.String("result", "unavailable"))
		f.Message = web.Message{Title: "Sign-in is not available just now",
			Text: fmt.Sprintf("%s does not answer. Nothing is wrong with your account; please try again in a "+
				"moment.", label(p)),
			Actions: []web.Action{{Label: "Try again", Href: h.link(request{provider: a.Provider,
				returnTo: a.ReturnTo})}}}
	case errors.Is(err, oidc.ErrInvalidGrant):
		f.Status, f.Attrs = http.StatusBadRequest, append(f.Attrs, slog.String("result", "refused"),
			slog.String("check", "code"))
		f.Message = web.Message{Title: "This sign-in has run out",
			Text: "The provider no longer accepts it. That happens when it took too long, or when the page was " +
				"loaded twice.", Actions: h.again(a)}
	case failed:
		f.Status, f.Attrs = http.StatusBadRequest, append(f.Attrs, slog.String("result", "refused"),
			slog.String("check", check.Check))
		f.Message = web.Message{Title: "This sign-in was refused",
			Text: fmt.Sprintf("What %s answered did not pass a check (%s), so nobody was signed in.", label(p),
				check.Check), Actions: h.again(a)}
	default:
		return fmt.Errorf("login with %s: %w", p.Name(), err)
	}
	return f
}

// quietly ends a silent login without a word to the person, who did not ask for it: back to where it came from. What is
// wrong on our own side is shown all the same.
func (h *Handler) quietly(w http.ResponseWriter, r *http.Request, a *attempt, err error) error {
	f, ok := errors.AsType[*web.Failure](err)
	if !a.Silent || !ok || f.Status >= 500 && !errors.Is(err, oidc.ErrUnavailable) {
		return err
	}
	attrs := append([]slog.Attr{slog.Bool("silent", true), slog.String("reason", f.Error())}, f.Attrs...)
	h.Site.Event(r, slog.LevelInfo, cmp.Or(f.Event, "login"), attrs...)
	redirect(w, a.ReturnTo)
	return nil
}

// refuse is a page that says why nobody was signed in.
func refuse(status int, say string, err error, attrs ...slog.Attr) *web.Failure {
	return &web.Failure{Status: status, Message: web.Message{Text: say}, Err: err, Event: "login",
		Attrs: append([]slog.Attr{slog.String("result", "refused")}, attrs...)}
}

// redirect answers 303: what follows is a GET. There is no body that could repeat the address.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}
