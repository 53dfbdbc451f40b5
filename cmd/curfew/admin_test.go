package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"strings"
	"testing"

	"example.com/curfew/console"
)

func TestACommandSaysWhoRunsIt(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said <- r.Header.Get(console.OperatorHeader)
		io.WriteString(w, `{"level":"info"}`)
	}))
	defer private.Close()
	const refused = "curfew: the name of the operator (CURFEW_OPERATOR, SUDO_USER, USER or LOGNAME) has control " +
		"characters: set CURFEW_OPERATOR to one without\nSee curfew --help.\n"
	for _, row := range []struct {
		environ []string
		want    string // the header
		status  int
		stderr  string
	}{
		{[]string{"CURFEW_OPERATOR=olga@vm", "USER=root"}, "olga@vm", 0, ""},
		{[]string{"CURFEW_OPERATOR=Jörg@vm"}, "J%C3%B6rg@vm", 0, ""},
		{[]string{"SUDO_USER=olga", "USER=root"}, "olga@" + host, 0, ""},
		{nil, me.Username + "@" + host, 0, ""},
		{[]string{"CURFEW_OPERATOR=ol\nga"}, "", 2, refused},
	} {
		var out, stderr bytes.Buffer
		status := runIn(t.Context(), process{stdin: strings.NewReader(""), stdout: &out, stderr: &stderr,
			environ: row.environ}, []string{"log-level", "--admin", private.URL})
		got := ""
		select {
		case got = <-said:
		default:
		}
		if got != row.want || status != row.status || stderr.String() != row.stderr {
			t.Errorf("%q: said %q, want %q; exit status %d, want %d: %s", row.environ, got, row.want, status, row.status,
				&stderr)
		}
	}
}

func TestACommandSaysWhatAnswersAtAdmin(t *testing.T) {
	t.Parallel()
	const not = "curfew: this is not the private listener of a curfew gateway of this release: see --admin (URL answered "
	for _, row := range []struct {
		name   string
		status int
		kind   string
		body   string
		want   string
	}{
		{"a page", 200, "text/html", "a page", not + "200 OK, text/html)\n"},
		{"nothing", 200, "", "", not + "200 OK, without a type)\n"},
		{"a gateway's public listener", 401, "application/json", `{"error":"unauthorized"}`, not + "401 Unauthorized)\n"},
		{"another server", 404, "text/plain", "404 page not found", not + "404 Not Found)\n"},
		{"the private listener", 404, "application/json", `{"error":"there is no such notice"}`,
			"curfew: there is no such notice\n"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{row.kind}
			w.WriteHeader(row.status)
			io.WriteString(w, row.body)
		}))
		_, stderr, status := command("notice", "show", "1", "--admin", server.URL)
		server.Close()
		if want := strings.ReplaceAll(row.want, "URL", server.URL); status != 1 || stderr != want {
			t.Errorf("%s: exit status %d, want 1: got %q, want %q", row.name, status, stderr, want)
		}
	}
}

func TestAnIDThatIsEmptyIsRefused(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"session show |":  "ID is empty: curfew session show ID [flags]",
		"session end a |": "an ID is empty",
		"notice show |":   "ID is empty: curfew notice show ID [flags]",
		"notice retry |":  "an ID is empty",
		"notice drop 1 |": "an ID is empty",
		"why |":           "SUB is empty: curfew why SUB [flags]",
		"person forget |": "SUB is empty: curfew person forget SUB [flags]",
	} {
		all := strings.Split(strings.TrimSuffix(args, "|"), " ")
		_, stderr, status := command(append(all, "--admin", "http://127.0.0.1:1")...)
		if status != 2 || stderr != "curfew: "+want+"\nSee curfew --help.\n" {
			t.Errorf("%s: exit status %d, want 2: got %q, want %q", args, status, stderr, want)
		}
	}
}

func TestWhatWasDoneBeforeAFaultIsCounted(t *testing.T) {
	t.Parallel()
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/notices/zz/drop" {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error":"there is no such notice"}`)
			return
		}
		io.WriteString(w, "{}")
	}))
	defer private.Close()
	for _, row := range []struct {
		ids            string
		status         int
		stdout, stderr string
	}{
		{"1 2", 0, "2 notices dropped\n", ""},
		{"1 zz 2", 1, "1 notice dropped\n", "curfew: notice zz: there is no such notice\n"},
		{"zz 1", 1, "", "curfew: notice zz: there is no such notice\n"},
	} {
		args := append([]string{"notice", "drop", "--admin", private.URL}, strings.Fields(row.ids)...)
		stdout, stderr, status := command(args...)
		if status != row.status || stdout != row.stdout || stderr != row.stderr {
			t.Errorf("%s: exit status %d, want %d\n%s%s", row.ids, status, row.status, stdout, stderr)
		}
	}
}
