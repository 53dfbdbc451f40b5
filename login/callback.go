package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"

	"example.com/curfew/internal/span"
	"example.com/curfew/oidc"
	"example.com/curfew/web"
)

// callback is the redirect URI, to which the provider sends the person back:
//
//  0. An answer that comes as a form is sent once more by a page of this site (see [Handler.relay]). One that comes as
//     a JWT is taken apart (JARM §4.4).
//  1. The state must belong to an attempt of this browser, made for this provider (RFC 9700 §4.7, §4.4.2). This is
//     checked before anything else.
//  2. Verify the answer, if it is a JWT. Check the iss parameter (RFC 9207 §2.4), then the provider's error, then that
//     there is a code.
//  3. Exchange the code, once (see exchangeOnce), and verify the ID Token (Core §3.1.3.7).
//  4. Request userinfo, which must be of the same subject (Core §5.3.2).
//  5. Check the claims that the site requires, and call OnLogin. If the person is refused here, the refresh token is
//     revoked.
//  6. Create the session, unless a logout that came meanwhile bars it. The browser gets a new bearer, and the session
//     that it had is ended.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request, p *oidc.Provider) error {
	q, relayed, err := callbackParams(r)
	if err != nil {
		return err
	}
	if r.Method == http.MethodPost && !relayed {
		h.relay(w, r, q)
		return nil
	}
	jwt, err := openResponse(p, q)
	if err != nil {
		return h.providerFailure(p, &attempt{Provider: p.Name()}, err)
	}
	a, err := h.findAttempt(r, q["state"])
	if err != nil {
		return h.unmatched(w, r, p, a, q, err)
	}
	span.Link(r.Context(), a.Trace)
	if err := h.checkParams(r.Context(), p, a, q, jwt); err != nil {
		// An error alone used nothing up. Some providers keep the request, and answer it after the next sign-in of the
		// person there.
		if q["error"] == "" || q["code"] != "" {
			h.clearCookie(w, h.cookieName(a.Slot))
		}
		if errors.Is(err, errNoSelection) {
			h.Site.Event(r, slog.LevelInfo, "login", slog.String("result", "again"), slog.String("provider", p.Name()),
				slog.String("error", err.Error()))
			redirect(w, h.link(a.again(withLogin(a.Prompt))))
			return nil
		}
		return h.endSilent(w, r, a, err)
	}
	o, err := h.exchangeOnce(r, p, a, q["code"])
	if errors.Is(err, errNotBegun) { // nothing was used up, so the page can be loaded again
		return h.storeFailure(p, a, err)
	}
	h.clearCookie(w, h.cookieName(a.Slot))
	if err == nil {
		err = h.respond(w, r, p, a, o)
	}
	return h.endSilent(w, r, a, err)
}

// relay answers a form that the provider's page has sent here (OAuth 2.0 Form Post Response Mode). Browsers send none
// of our cookies with it, since it comes from another site, so the answer is a page of this site that sends it once
// more. That changes nothing of what is checked: the cookie of the attempt has to come with it.
func (h *Handler) relay(w http.ResponseWriter, r *http.Request, q map[string]string) {
	form := map[string]string{relayedField: "1"}
	for name, value := range q {
		if value != "" {
			form[name] = value
		}
	}
	h.Site.Render(w, r, http.StatusOK, web.Message{Title: "Signing in",
		Text:    "Please continue, to finish signing in.",
		Actions: []web.Action{{Label: "Continue", Href: r.URL.Path, Post: true, Form: form}}, Submit: true})
}

// relayedField is there when a page of this site has sent the form.
const relayedField = "relayed"

// openResponse takes apart an answer that is a JWT, and puts its parameters into q. It returns nil for a provider that
// answers otherwise.
func openResponse(p *oidc.Provider, q map[string]string) (*oidc.SignedResponse, error) {
	raw := q["response"]
	delete(q, "response")
	if c := p.Config(); !c.SignsResponse() {
		return nil, nil
	}
	if raw == "" {
		return nil, &oidc.Error{Check: "response", Err: errors.New("the answer is not a JWT, as response_mode asks for")}
	}
	jwt, err := p.OpenResponse(raw)
	if err != nil {
		return nil, &oidc.Error{Check: "response", Err: err}
	}
	for _, name := range []string{"state", "iss", "error", "error_description", "code"} {
		q[name] = jwt.Param(name)
	}
	return jwt, nil
}

// callbackParams returns the parameters of the provider's answer, and whether a page of this site has sent them. None
// may be repeated (RFC 6749 §3.1).
func callbackParams(r *http.Request) (q map[string]string, relayed bool, err error) {
	values, err := parameters(r)
	if err != nil {
		return nil, false, err
	}
	q = make(map[string]string)
	for _, name := range []string{"state", "iss", "error", "error_description", "code", "response"} {
		if len(values[name]) > 1 {
			return nil, false, refuse(http.StatusBadRequest, "The address of this page is malformed.",
				fmt.Errorf("%s comes more than once", name))
		}
		q[name] = values.Get(name)
	}
	return q, values.Has(relayedField), nil
}

// checkParams does step 2 of callback, and the last check of step 1.
func (h *Handler) checkParams(ctx context.Context, p *oidc.Provider, a *attempt, q map[string]string,
	jwt *oidc.SignedResponse) error {
	if a.Provider != p.Name() {
		return h.providerFailure(p, a, &oidc.Error{Check: "redirect_uri",
			Err: errors.New("the answer came to another provider's redirect URI")})
	}
	if jwt != nil {
		if err := p.VerifyResponse(ctx, jwt, h.Sessions.Now()); err != nil {
			return h.providerFailure(p, a, err)
		}
	}
	if err := p.CheckIssParameter(ctx, q["iss"]); err != nil {
		return h.providerFailure(p, a, err)
	}
	if refusesSelection(a, q["error"]) {
		return fmt.Errorf("%w: it answered %s", errNoSelection, quoteError(q["error"], q["error_description"]))
	}
	if q["error"] != "" {
		return h.declined(p, a, q["error"], q["error_description"])
	}
	if q["code"] == "" {
		return h.providerFailure(p, a, &oidc.Error{Check: "code",
			Err: errors.New("the answer has neither a code nor an error")})
	}
	return nil
}

// errNoSelection means that the provider does not support prompt=select_account.
var errNoSelection = errors.New("the provider does not support select_account: it is asked for login instead")

// refusesSelection reports whether an error may be about select_account in the request.
func refusesSelection(a *attempt, code string) bool {
	return withLogin(a.Prompt) != a.Prompt &&
		slices.Contains([]string{"invalid_request", "account_selection_required", "interaction_required",
			"login_required"}, code)
}
