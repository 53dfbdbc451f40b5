package e2e_test

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// run has the command do something and end. It returns its exit status and what it wrote, with runs of blanks made one.
func (g *gateway) run(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	binary := curfew(t) // which may have to be built first
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append(args, g.flags...)...)
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.SysProcAttr = g.dir, append(environ(), g.env...), strings.NewReader(stdin), orphan()
	out, err := cmd.CombinedOutput()
	if failed := (*exec.ExitError)(nil); err != nil && !errors.As(err, &failed) {
		t.Fatalf("curfew %s: %v", strings.Join(args, " "), err)
	}
	lines := strings.Split(string(out), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return cmd.ProcessState.ExitCode(), strings.Join(lines, "\n")
}

// says fails the test unless a command ended so and wrote these lines.
func says(t *testing.T, what string, status, want int, out string, lines ...string) {
	t.Helper()
	if status != want {
		t.Errorf("%s: exit status %d, want %d", what, status, want)
	}
	for _, line := range lines {
		if !strings.Contains("\n"+out, "\n"+line) {
			t.Errorf("%s should say %q", what, line)
		}
	}
	if t.Failed() {
		t.Fatalf("%s said:\n%s", what, out)
	}
}

func TestCheckSaysWhatThisProviderCanDo(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	status, out := g.run(t, "", "check")
	says(t, "check without the provider", status, 1, out,
		"fault discovery the provider could not be asked: its metadata: "+p.issuer, "→ see that this machine reaches",
		"1 fault")

	p.start(t)
	g.start(t)
	status, out = g.run(t, "", "check")
	says(t, "check beside serve", status, 0, out,
		"not checked back-channel URL "+g.url+"/auth/backchannel-logout",
		"ok discovery "+p.issuer,
		"ok signing algorithm RS256",
		"ok keys 1 of 1 can be used: e2e-RS256 RSA RS256",
		"ok end_session_endpoint "+p.issuer+"/session/end",
		"ok backchannel_logout_supported yes",
		"ok backchannel_logout_session_supported yes",
		"ok revocation_endpoint "+p.issuer,
		"ok PKCE S256",
		"ok token_endpoint_auth_method client_secret_basic is offered",
		"ok iss parameter sent, and right",
		"ok client the token endpoint takes app by client_secret_basic",
		"ok redirect URI "+g.url+"/auth/callback is registered",
		"ok scopes openid profile email",
		"ok clock ",
		"ok store sqlite:"+g.dir+"/curfew.db is in use by a running curfew",
		"ok key file "+g.dir+"/curfew.key",
		"0 faults, 0 warnings, 2 not checked")

	for _, c := range []struct{ name, flag, value, fault string }{
		{"a wrong secret", "--client-secret-file", g.write(t, "wrong", "wrong-secret"), "fault client "},
		{"a client that is not registered", "--client-id", "nobody", "fault client "},
		{"a redirect URI that is not registered", "--url", "http://127.0.0.1:9", "fault redirect URI "},
	} {
		other := *g
		other.flags = slices.Clone(g.flags)
		other.flags[slices.Index(other.flags, c.flag)+1] = c.value
		status, out = other.run(t, "", "check")
		says(t, "check with "+c.name, status, 1, out, c.fault)
	}

	g.stop(t)
	status, out = g.run(t, "", "check")
	says(t, "check of a gateway that is not running", status, 0, out, "ok store sqlite:"+g.dir+"/curfew.db answers",
		"0 faults, 0 warnings")

	status, out = g.run(t, "", "check", "--id-token-signed-response-alg", "ES256")
	says(t, "check with another algorithm than the client's", status, 1, out, "fault signing algorithm ES256",
		"fault keys none can be used")
	status, out = g.run(t, "", "check", "--id-token-signed-response-alg", "HS256")
	says(t, "check with an algorithm that is never taken", status, 2, out, "curfew: the configuration has 1 fault")
}

func TestExplainShowsEachStepForATokenOfThisProvider(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app", "app2")
	g, other := gs[0], gs[1]
	p.start(t)
	g.start(t)
	alice := newBrowser("alice's browser")
	alice.signIn(t, g, "alice")
	from := p.said()
	alice.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	post, _ := p.event(t, from, "backchannel.post")

	steps := []string{"shape", "jwe", "header", "alg", "typ", "json", "iss", "aud", "registration", "iat", "exp", "nbf",
		"jti", "events", "nonce", "sub", "signature"}
	passed := make([]string, len(steps))
	for i, name := range steps {
		passed[i] = "ok " + name + " "
	}
	file := g.write(t, "token.txt", post.Token+"\n")
	for name, how := range map[string]struct {
		stdin string
		arg   string
	}{
		"explain a file":         {"", file},
		"explain a request body": {"logout_token=" + post.Token, "-"},
	} {
		status, out := g.run(t, how.stdin, "token", "explain", how.arg)
		says(t, name, status, 0, out, append(passed, `"sub": "alice"`, "accepted: ")...)
		if signature := post.Token[strings.LastIndex(post.Token, ".")+1:]; strings.Contains(out, signature) {
			t.Errorf("%s prints the signature: whoever reads that can use the token", name)
		}
	}

	status, out := other.run(t, post.Token, "token", "explain", "-")
	says(t, "explain a token for another client", status, 1, out, "ok iss ", "failed aud ", "refused: ")
	status, out = g.run(t, post.Token[:len(post.Token)-8]+"AAAAAAAA", "token", "explain", "-")
	says(t, "explain a token whose signature was changed", status, 1, out,
		append(passed[:len(passed)-1:len(passed)-1], "failed signature ", "refused: 1 step of 17 did not pass")...)
	p.kill()
	status, out = g.run(t, post.Token, "token", "explain", "-")
	says(t, "explain while the provider is away", status, 1, out,
		append(passed[:len(passed)-1:len(passed)-1], "failed signature ")...)
}
