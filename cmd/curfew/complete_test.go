package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// program returns a folder with the program as curfew, which is this test.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "curfew")); err != nil { // see TestMain
		t.Fatal(err)
	}
	return dir
}

// shell runs a program that a machine may lack, with curfew in its path.
func shell(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing, and with CI=true that is a failure", name)
		}
		t.Skipf("NOT TESTED: %s is missing", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "LC_ALL=C.UTF-8", "TERM=dumb",
		"MANPAGER=cat", "MANWIDTH=100")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// questions are command lines and what a shell must offer for their last word, and must not.
func questions(o *operated) []struct {
	words      []string
	want, lack []string
} {
	admin := "http://" + o.private
	return []struct {
		words      []string
		want, lack []string
	}{
		{[]string{"curfew", "se"}, []string{"serve", "session"}, []string{"store", "why"}},
		{[]string{"curfew", "session", ""}, []string{"list", "show", "end"}, []string{"serve", "secret.txt"}},
		{[]string{"curfew", "session", "list", "--s"}, []string{"--sub", "--sid", "--since", "--scan"}, []string{"--limit"}},
		{[]string{"curfew", "events", "--type", "sign"}, []string{"sign_in"}, []string{"operator"}},
		{[]string{"curfew", "notice", "list", "--state", ""}, []string{"pending", "dead"}, []string{"secret.txt"}},
		{[]string{"curfew", "why", ""}, nil, []string{"secret.txt"}},
		{[]string{"curfew", "session", "list", "--admin", admin, "--provider", ""}, []string{"main"}, []string{"secret.txt"}},
		{[]string{"curfew", "session", "list", "--admin", "http://127.0.0.1:1", "--provider", ""}, nil,
			[]string{"main", "secret.txt"}},
	}
}

func TestShellsComplete(t *testing.T) {
	t.Parallel()
	o := operate(t)
	dir := program(t)
	if err := os.WriteFile(filepath.Join(dir, "secret.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	quoted := func(words []string) string {
		var all []string
		for _, w := range words {
			all = append(all, "'"+w+"'")
		}
		return strings.Join(all, " ")
	}
	ask := map[string]func(t *testing.T, words []string) string{
		// As the shell does it: the function that the script registers, with the words of the line.
		"bash": func(t *testing.T, words []string) string {
			helper := "/usr/share/bash-completion/bash_completion"
			if _, err := os.Stat(helper); err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatal("bash-completion is missing, and with CI=true that is a failure")
				}
				t.Skip("NOT TESTED: bash-completion is missing")
			}
			return shell(t, dir, "bash", "--norc", "-c", `
				source `+helper+`
				source <(curfew completion bash)
				COMP_WORDS=(`+quoted(words)+`); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
				COMP_LINE="${COMP_WORDS[*]}"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9; COMP_KEY=9
				complete -p curfew >/dev/null || exit 3
				compopt() { :; }
				__start_curfew curfew "${COMP_WORDS[COMP_CWORD]}"
				printf '%s\n' "${COMPREPLY[@]}"`)
		},
		"fish": func(t *testing.T, words []string) string {
			line := strings.Join(words, " ")
			return shell(t, dir, "fish", "--no-config", "-c", "curfew completion fish | source; complete -C '"+line+"'")
		},
		// zsh offers words only in its editor. So the two functions that would show them print them.
		"zsh": func(t *testing.T, words []string) string {
			return shell(t, dir, "zsh", "-f", "-c", `
				autoload -Uz compinit && compinit -u -d "$HOME/.zcompdump" || exit 3
				source <(curfew completion zsh) || exit 4
				[[ ${_comps[curfew]} == _curfew ]] || exit 5
				_describe() { print -l -- "${completions[@]}" }
				_arguments() { print -l -- *(N) }
				words=(`+quoted(words)+`); CURRENT=${#words}; _curfew || true`)
		},
	}
	for name, do := range ask {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, q := range questions(o) {
				out := do(t, q.words)
				for _, w := range q.want {
					if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(w) + `\b`).MatchString(out) {
						t.Errorf("%q does not offer %q:\n%s", q.words, w, out)
					}
				}
				for _, w := range q.lack {
					if !strings.HasPrefix(w, q.words[len(q.words)-1]) {
						continue // zsh itself leaves out what does not begin so
					}
					if regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(w) + `\b`).MatchString(out) {
						t.Errorf("%q offers %q:\n%s", q.words, w, out)
					}
				}
			}
		})
	}
}

// walk calls do for each command that people see.
func walk(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			walk(sub, do)
		}
	}
}

// Each command has a page, which has its words and all its flags, and which programs for manual pages take as it is.
func TestManualPagesHaveAllThatTheHelpHas(t *testing.T) {
	t.Parallel()
	dir := program(t)
	man := filepath.Join(dir, "man1")
	if _, stderr, status := command("man", man); status != 0 {
		t.Fatalf("curfew man: %d %s", status, stderr)
	}
	root := newRoot(&process{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
	root.InitDefaultCompletionCmd()
	pages := []string{}
	// Words that a page cuts at the end of a line, or a program sets otherwise, are compared without what it may change.
	plain := func(text string) string {
		text = regexp.MustCompile(`[\x60“”‘’'"]`).ReplaceAllString(text, "")
		return strings.Join(strings.Fields(text), " ")
	}
	walk(root, func(cmd *cobra.Command) {
		name := strings.ReplaceAll(cmd.CommandPath(), " ", "-")
		pages = append(pages, name+".1")
		raw, err := os.ReadFile(filepath.Join(man, name+".1"))
		if err != nil {
			t.Error(err)
			return
		}
		if !bytes.HasPrefix(raw, []byte(".TH ")) {
			t.Errorf("%s begins with %.40q", name, raw)
		}
		shown := plain(shell(t, dir, "man", "-l", "--no-hyphenation", "--no-justification", filepath.Join(man, name+".1")))
		if !strings.Contains(shown, plain(cmd.Short)) {
			t.Errorf("%s does not have %q", name, cmd.Short)
		}
		for paragraph := range strings.SplitSeq(cmd.Long, "\n\n") {
			if !strings.Contains(shown, plain(paragraph)) {
				t.Errorf("%s does not have %q:\n%s", name, paragraph, shown)
			}
		}
		for line := range strings.Lines(cmd.Example) {
			if !strings.Contains(shown, plain(line)) {
				t.Errorf("%s does not have the example %q", name, line)
			}
		}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && !strings.Contains(shown, "--"+f.Name) {
				t.Errorf("%s does not have the flag %s", name, f.Name)
			}
		})
	})
	written, err := os.ReadDir(man)
	if err != nil || len(written) != len(pages) {
		t.Errorf("%d pages for %d commands: %v", len(written), len(pages), err)
	}
	t.Run("mandoc", func(t *testing.T) {
		slices.Sort(pages)
		for _, page := range pages {
			out := shell(t, man, "mandoc", "-T", "lint", "-W", "warning,stop", page)
			if out != "" {
				t.Errorf("%s: %s", page, out)
			}
		}
	})
}

// What is completed for a flag is what its help says.
func TestChoicesAreThoseOfTheHelp(t *testing.T) {
	t.Parallel()
	root := newRoot(&process{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
	seen := 0
	walk(root, func(cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "provider" {
				return
			}
			complete, ok := cmd.GetFlagCompletionFunc(f.Name)
			if !ok {
				return
			}
			some, _ := complete(cmd, nil, "")
			for _, one := range some {
				seen++
				if !regexp.MustCompile(`\b` + one + `\b`).MatchString(f.Usage) {
					t.Errorf("%s --%s: %s is offered, and the help says %q", cmd.CommandPath(), f.Name, one, f.Usage)
				}
			}
		})
	})
	if seen < 10 {
		t.Errorf("only %d choices were seen: this test looks at the wrong thing", seen)
	}
}
