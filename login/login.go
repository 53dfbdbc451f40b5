package login

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"example.com/curfew/internal/guard"
	"example.com/curfew/internal/span"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// Handler signs people in. Site, Providers, Sessions and Keyring are required.
type Handler struct {
	Site *web.Site
	// Providers are the providers to sign in with. The first has a redirect URI without a name; see
	// [Handler.RedirectURI].
	Providers []*oidc.Provider
	Sessions  *session.Manager
	Keyring   *keyring.Keyring // seals the attempts
	Cookie    session.Cookie

	// OnLogin is called after all checks. It may add claims, and refuses the person by an error: the page shows the
	// text of an error made by [web.Fail], and nothing of any other. It cannot change the claims of the ID Token about
	// itself (iss, sub, sid, …).
	OnLogin func(ctx context.Context, claims map[string]any) error

	// StepUp returns how a person has to sign in for a request: the name of its host, its method, and its path and
	// query; nil: in any way. A sign-in that leads to such a page asks the provider for that.
	StepUp func(r *http.Request, host, method, target string) *session.StepUp
	// AttemptLife is how long a sign-in may take; default, and at most, [store.AttemptLifetime].
	AttemptLife time.Duration

	Home string // the path that a login without return_to leads to; default "/"

	exchanges   guard.Group // under way in this process
	initLimiter sync.Once
	longReturns *rate.Limiter // of return paths that are put into the store
}

func (h *Handler) attemptLife() time.Duration { return cmp.Or(h.AttemptLife, store.AttemptLifetime) }

func (h *Handler) log() *slog.Logger { return cmp.Or(h.Site.Log, slog.Default()) }

func (h *Handler) home() string { return cmp.Or(h.Home, "/") }

// Mount registers the routes of this package on mux: the login, and a callback for each provider.
func (h *Handler) Mount(mux *http.ServeMux) {
	mux.Handle(h.Site.Path("login"), h.Site.Page(failing(noPrefetch(h.start)), http.MethodGet, http.MethodPost))
	if h.Site.SeveralHosts() && !h.Site.SharedCookie {
		mux.Handle(h.Site.Path("handover"), h.Site.Page(h.redeem, http.MethodPost))
	}
	for _, p := range h.Providers {
		callback := func(w http.ResponseWriter, r *http.Request) error { return h.callback(w, r, p) }
		methods := []string{http.MethodGet}
		if c := p.Config(); c.PostsResponse() {
			methods = append(methods, http.MethodPost)
		}
		mux.Handle(h.Site.Path(h.callbackRoute(p.Name())), h.Site.Page(failing(noPrefetch(callback)), methods...))
	}
}

// noPrefetch answers a prefetch with an error, so that it neither begins nor uses up a login. Browsers discard such an
// answer and send the request again when the person opens the page.
func noPrefetch(h web.HandlerFunc) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if web.IsPrefetch(r) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return nil
		}
		return h(w, r)
	}
}

// failing has an error that h did not expect count as a login that failed, in the audit record and in metrics.
func failing(h web.HandlerFunc) web.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := h(w, r)
		if _, expected := errors.AsType[*web.Failure](err); err == nil || expected {
			return err
		}
		return &web.Failure{Status: http.StatusInternalServerError, Message: web.Message{Text: web.OurFault}, Err: err,
			Event: "login", Attrs: []slog.Attr{slog.String("result", "failed"), slog.String("check", "internal")}}
	}
}

// RedirectURI returns the redirect URI to register at the provider of that name. Each provider has its own, so that an
// answer of one cannot be taken for that of another (RFC 9700 §4.4.2). Adding a provider changes none of them.
func (h *Handler) RedirectURI(provider string) string {
	return h.Site.Absolute(h.callbackRoute(provider))
}

func (h *Handler) callbackRoute(provider string) string {
	if len(h.Providers) > 0 && h.Providers[0].Name() == provider {
		return "callback"
	}
	return "callback/" + provider
}

// request has the parameters of a link to the login route.
type request struct {
	here      web.Host  // that it came to
	host      web.Host  // that it leads to, if there is no handover
	handover  *handover // the sign-in is for the host that this names
	provider  string
	returnTo  string
	loginHint string
	prompt    string
	silent    bool
	params    map[string]string // see [oidc.Config.LinkParams]
	// The request that the person signs in for, as "METHOD /path", if that is not GET and returnTo. See
	// [Handler.StepUp].
	stepUp string
}

// maxLinkParams bounds the names and values that a link sets for the provider, since they go into the state.
const maxLinkParams = 512

// start begins the code flow (Core §3.1.2.1), or shows the page to choose a provider.
func (h *Handler) start(w http.ResponseWriter, r *http.Request) error {
	q, err := h.parse(r)
	if err != nil {
		return err
	}
	if q.handover == nil && q.host.Name != q.here.Name { // it has to begin there
		redirect(w, q.host.Origin+h.link(q))
		return nil
	}
	if r.Method == http.MethodPost {
		// A page of another site may have sent the form. A browser sends our cookies to the address that it leads to,
		// but not with the form.
		redirect(w, q.host.Origin+h.link(q))
		return nil
	}
	switch {
	case !q.here.Main && h.Site.SharedCookie: // it does not pass our routes to us, or not all
		redirect(w, h.Site.Origin()+h.link(q))
		return nil
	case !q.here.Main:
		return h.beginHandover(w, r, q, 0)
	case q.handover != nil && h.Sessions.Now().Sub(q.handover.Began) >= h.attemptLife():
		// The browser has lost the cookie of it.
		host, to := h.handoverTarget(r, q.handover)
		q.handover, q.returnTo = nil, to
		redirect(w, host.Origin+h.link(q))
		return nil
	case q.handover != nil:
		if done, err := h.handOverSession(w, r, q); done || err != nil {
			return err
		}
	}
	if q.provider == "" && len(h.Providers) > 1 {
		if q.silent {
			return refuse(http.StatusBadRequest, "A silent sign-in has to name its provider.", nil)
		}
		h.chooseProvider(w, r, q)
		return nil
	}
	p := h.find(q.provider)
	if p == nil {
		return refuse(http.StatusBadRequest, "This site knows no such provider to sign in with.", nil)
	}
	if m, err := p.Metadata(r.Context()); err == nil { // otherwise AuthURL returns the error
		q.prompt = supportedPrompt(q.prompt, m.Prompts)
	}
	q.params = paramsFor(p, q.params)
	demand := h.demand(r, q.handover, q.stepUp, q.returnTo)
	a := attempt{ReturnTo: q.returnTo, For: q.handover, Provider: p.Name(), Silent: q.silent, Prompt: q.prompt,
		Params: q.params, StepUp: q.stepUp, MaxAge: maxAge(p, q.params, demand)}
	if a.Began, a.Era, err = h.Sessions.Begin(r.Context()); err != nil {
		return h.storeFailure(p, &a, err)
	}
	if h.Site.Tracer != nil {
		a.Trace = span.Text(r.Context())
	}
	cookie, err := h.begin(r, &a)
	if err != nil {
		return err
	}
	ask := oidc.AuthRequest{
		RedirectURI: h.RedirectURI(p.Name()), State: a.State, Nonce: a.Nonce, Verifier: a.Verifier,
		LoginHint: q.loginHint, Prompt: q.prompt, MaxAge: a.MaxAge, Extra: url.Values{},
	}
	for name, value := range q.params {
		ask.Extra.Set(name, value)
	}
	stepUp(r.Context(), p, demand, &ask)
	if q.silent {
		ask.IDTokenHint = h.silentHint(r, p)
	}
	to, err := p.AuthURL(r.Context(), ask)
	if err == nil && len(to) > maxURL && ask.IDTokenHint != "" {
		ask.IDTokenHint = ""
		to, err = p.AuthURL(r.Context(), ask)
	}
	if err != nil {
		return h.endSilent(w, r, &a, h.providerFailure(p, &a, err))
	}
	h.evictAttempts(w, r, cookieSize(cookie))
	http.SetCookie(w, cookie)
	h.Site.Event(r, slog.LevelDebug, "login_started", slog.String("provider", p.Name()), slog.Bool("silent", q.silent))
	redirect(w, to)
	return nil
}

// maxURL is how long the URL of a redirect may be, as for a sign-out.
const maxURL = 4 << 10

// silentHint returns the ID Token of the session that the browser has, if it is of this provider. It says whom a silent
// sign-in is about, which Core §3.1.2.1 recommends and some providers require.
func (h *Handler) silentHint(r *http.Request, p *oidc.Provider) string {
	s, err := h.previousSession(r)
	if err != nil || s == nil || s.Issuer != p.Config().Issuer || s.ClientID != p.Config().ClientID {
		return ""
	}
	return s.Tokens.IDToken
}

// parse reads the parameters of a link to the login route, which a stranger may have made.
func (h *Handler) parse(r *http.Request) (request, error) {
	values, err := parameters(r)
	if err != nil {
		return request{}, err
	}
	q := request{provider: values.Get("provider"), loginHint: values.Get("login_hint")}
	if q.here, err = h.Site.HostOf(r); err != nil {
		return request{}, err
	}
	if sealed := values.Get("handover"); sealed != "" && q.here.Main {
		if q.handover, err = h.openHandover(sealed); err != nil {
			return request{}, err
		}
	} else {
		to := cmp.Or(values.Get("return_to"), values.Get("target_link_uri")) // Core §4
		q.host, q.returnTo = h.returnTo(r, q.here, to)
		if h.Site.SharedCookie { // it leads there by itself
			q.returnTo, q.host = h.Site.ReturnLink(q.host, q.returnTo), q.here
		}
	}
	if iss := values.Get("iss"); iss != "" { // Core §4
		i := slices.IndexFunc(h.Providers, func(p *oidc.Provider) bool {
			return p.Config().Issuer == iss && (q.provider == "" || q.provider == p.Name())
		})
		if i < 0 {
			return request{}, refuse(http.StatusBadRequest, "This site knows no such provider to sign in with.", nil)
		}
		q.provider = h.Providers[i].Name()
	}
	if q.params, err = h.linkParams(values); err != nil {
		return request{}, err
	}
	if q.stepUp = values.Get("step_up"); q.stepUp != "" && !validStepUp(q.stepUp) {
		return request{}, refuse(http.StatusBadRequest, "step_up is too long or malformed.", nil)
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

// selectAccount is the prompt to select an account. It is optional for providers. The prompt "login" is not (Core
// §15.1), and lets the person change the account too.
const selectAccount = "select_account"

// supportedPrompt returns prompt, with login instead of select_account if the provider lists the prompts that it
// supports and select_account is not one of them.
func supportedPrompt(prompt string, supported []string) string {
	if len(supported) == 0 || slices.Contains(supported, selectAccount) {
		return prompt
	}
	return withLogin(prompt)
}

// withLogin returns prompt with login instead of select_account.
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

// parameters returns the parameters of a request: of its query, or with POST of its form.
func parameters(r *http.Request) (url.Values, error) {
	raw := r.URL.RawQuery
	if r.Method == http.MethodPost {
		media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || media != "application/x-www-form-urlencoded" {
			return nil, refuse(http.StatusUnsupportedMediaType, "This address takes a form.", nil)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "The form is too large, or did not arrive.", err)
		}
		raw = string(body)
	}
	values, err := web.ParseQuery(raw)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "The address of this page is malformed.", err)
	}
	return values, nil
}

// returnTo returns the host and the path that the login leads to. It is on this site, and does not itself begin or end
// a session.
func (h *Handler) returnTo(r *http.Request, here web.Host, raw string) (web.Host, string) {
	if raw == "" {
		return here, h.home()
	}
	host, to, err := h.Site.ParseReturnURL(raw, here)
	if err != nil {
		h.returnLost(r, err)
		return here, h.Site.First()
	}
	path := web.DecodedPath(to)
	for _, route := range []string{"login", "callback", "logout", "frontchannel-logout", "handover"} {
		if own := h.Site.Path(route); path == own || strings.HasPrefix(path, own+"/") {
			return host, h.home()
		}
	}
	return host, to
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

// again returns the parameters of a login that repeats an attempt.
func (a *attempt) again(prompt string) request {
	return request{provider: a.Provider, handover: a.For, returnTo: a.ReturnTo, prompt: prompt, params: a.Params,
		stepUp: a.StepUp}
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
	if q.handover != nil {
		set("handover", h.sealHandover(q.handover))
	} else {
		set("return_to", q.returnTo)
	}
	set("login_hint", q.loginHint)
	set("prompt", q.prompt)
	set("step_up", q.stepUp)
	for name, value := range q.params {
		set(name, value)
	}
	if q.silent && q.prompt == "" {
		set("silent", "true")
	}
	return h.Site.Path("login") + "?" + values.Encode()
}

// chooseProvider shows the page to choose a provider.
func (h *Handler) chooseProvider(w http.ResponseWriter, r *http.Request, q request) {
	all := q.params
	m := web.Message{Title: "Sign in", Text: "Choose how you want to sign in.", Choice: true}
	for _, p := range h.Providers {
		q.provider = p.Name()
		q.params = paramsFor(p, all)
		m.Actions = append(m.Actions, web.Action{Label: p.Label(), Href: h.link(q)})
	}
	h.Site.Render(w, r, http.StatusOK, m)
}

// redirect answers 303, so that a GET follows. It has no body, which would repeat the URL.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}
