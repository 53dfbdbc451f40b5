package login

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// linkParams returns the parameters of a link to the login route that it may set for one of the providers; see
// [oidc.Config.LinkParams]. A stranger may have made the link. What no provider's list names is ignored.
func (h *Handler) linkParams(values url.Values) (map[string]string, error) {
	params := make(map[string]string)
	size := 0
	for _, p := range h.Providers {
		for _, name := range p.Config().LinkParams {
			given := values[name]
			if _, seen := params[name]; seen || len(given) == 0 || len(given) == 1 && given[0] == "" {
				continue
			}
			err := oidc.CheckLinkParam(name, given[0])
			size += len(name) + len(given[0])
			switch {
			case len(given) > 1:
				err = fmt.Errorf("%s comes more than once", name)
			case err == nil && size > maxLinkParams:
				err = fmt.Errorf("the parameters for the provider have more than %d bytes", maxLinkParams)
			}
			if err != nil {
				return nil, refuse(http.StatusBadRequest,
					"A parameter in the address of this page is too long or malformed.", err)
			}
			params[name] = given[0]
		}
	}
	return params, nil
}

// paramsFor returns those parameters that a link may set for this provider.
func paramsFor(p *oidc.Provider, params map[string]string) map[string]string {
	params = maps.Clone(params)
	maps.DeleteFunc(params, func(name, _ string) bool { return !slices.Contains(p.Config().LinkParams, name) })
	return params
}

// validStepUp reports whether the value of step_up is a method and a path. A stranger may have written it; the policy
// says what it means.
func validStepUp(value string) bool {
	method, path, ok := strings.Cut(value, " ")
	return ok && method != "" && strings.HasPrefix(path, "/") && len(value) <= maxLinkParams &&
		utf8.ValidString(value) && !strings.ContainsFunc(value, unicode.IsControl)
}

// demand returns how the person has to sign in for the request that the login is for; nil: in any way.
func (h *Handler) demand(r *http.Request, f *handover, stepUp, returnTo string) *session.StepUp {
	if h.StepUp == nil {
		return nil
	}
	host, target, _ := h.Site.ParseReturnURL(returnTo, h.Site.Main()) // with a shared cookie it may name another host
	if f != nil {
		host, target = h.handoverTarget(r, f)
	}
	method := http.MethodGet
	if stepUp != "" {
		method, target, _ = strings.Cut(stepUp, " ")
	}
	return h.StepUp(r, host.Name, method, target)
}

// maxAge returns the smallest max_age that anybody asks for, nil if nobody does.
func maxAge(p *oidc.Provider, params map[string]string, demand *session.StepUp) *int {
	c := p.Config()
	least := c.MaxAge(params["max_age"])
	if demand != nil && demand.MaxAge > 0 {
		if n := int(demand.MaxAge.Seconds()); least == nil || n < *least {
			least = &n
		}
	}
	return least
}

// stepUp adds to an authentication request what demand asks for. Its max_age is there already (see maxAge). For `amr`
// there is no parameter but `claims` (Core §5.5), which few providers read; so the person is asked to sign in anew,
// because the provider's session would answer with the same methods.
func stepUp(ctx context.Context, p *oidc.Provider, demand *session.StepUp, ask *oidc.AuthRequest) {
	if demand == nil {
		return
	}
	if len(demand.ACR) > 0 {
		ask.Extra.Set("acr_values", strings.Join(demand.ACR, " "))
	}
	if len(demand.AMR) == 0 {
		return
	}
	c := p.Config()
	if ask.Prompt == "" && !slices.Contains(strings.Fields(c.Prompt), "login") {
		ask.Prompt = "login"
	}
	m, err := p.Metadata(ctx)
	if err != nil || !m.ClaimsParameter {
		return
	}
	claims := make(map[string]json.RawMessage)
	given := ask.Extra.Get("claims")
	if given == "" {
		given = c.AuthParams["claims"]
	}
	if given != "" && json.Unmarshal([]byte(given), &claims) != nil || claims == nil {
		return // it is for the provider to say what is wrong with it
	}
	inToken := make(map[string]json.RawMessage)
	if json.Unmarshal(claims["id_token"], &inToken) != nil || inToken == nil { // it is missing, or no object
		inToken = make(map[string]json.RawMessage)
	}
	inToken["amr"] = encode(map[string]any{"essential": true, "values": demand.AMR})
	claims["id_token"] = encode(inToken)
	ask.Extra.Set("claims", string(encode(claims)))
}

func encode(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is made of texts, and of what was read as JSON
	}
	return text
}

// unmet is the page for a sign-in that is not what the page asks for, although the provider was asked for that. Nobody
// is sent to the provider again without having seen it, so there is no loop. A session that the browser has stays.
func (h *Handler) unmet(p *oidc.Provider, a *attempt, missing string) error {
	f := refuse(http.StatusForbidden, "", fmt.Errorf("the provider was asked for a stronger or newer sign-in, and the "+
		"ID Token does not show it by its %s", missing), slog.String("provider", p.Name()),
		slog.String("check", "step_up"), slog.String("missing", missing))
	f.Message = h.unmetMessage(p, a)
	return f
}

func (h *Handler) unmetMessage(p *oidc.Provider, a *attempt) web.Message {
	return web.Message{Title: "This page needs another sign-in",
		Text: "This page asks for a sign-in that is stronger or newer, and {provider} did not confirm one. You may " +
			"have to use another way to sign in there.",
		Args: map[string]string{"provider": p.Label()},
		Note: "If you were signed in here before, you still are.",
		Actions: []web.Action{{Label: "Sign in again", Href: h.link(a.again("login"))},
			{Label: "Go to the first page", Href: h.home()}}}
}
