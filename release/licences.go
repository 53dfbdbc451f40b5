package main

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// licence is what the files of a module say of its licence.
type licence struct {
	id   string // of SPDX, of the file with the licence alone; "" where it is not known
	text string // of all files with licences and notices
}

var (
	licenceFiles = regexp.MustCompile(`(?i)^(licen[sc]e|copying|notice|unlicense|patents)`)
	licenceFile  = regexp.MustCompile(`(?i)^(licen[sc]e|copying)(\.(txt|md))?$`)
)

// licences reads the licences of modules, by path, from where `go build` has read the modules.
func (r *release) licences(modules []*debug.Module) (map[string]licence, error) {
	args := []string{"list", "-mod=readonly", "-m", "-f", "{{.Path}}\t{{.Dir}}"}
	for _, m := range modules {
		args = append(args, m.Path)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = r.source, r.env
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m: %w", err)
	}
	all := map[string]licence{}
	for line := range strings.Lines(string(out)) {
		module, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if all[module], err = readLicence(dir); err != nil {
			return nil, fmt.Errorf("the licence of %s: %w", module, err)
		}
	}
	// Its text is the same, and some distributions of Go keep it elsewhere.
	all[stdlib] = all["golang.org/x/sys"]
	return all, nil
}

func readLicence(dir string) (l licence, err error) {
	files, err := os.ReadDir(dir) // by name
	if err != nil {
		return l, err
	}
	var texts []string
	for _, f := range files {
		if f.IsDir() || !licenceFiles.MatchString(f.Name()) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return l, err
		}
		texts = append(texts, strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n"))+"\n")
		if cover := licensecheck.Scan(text); licenceFile.MatchString(f.Name()) && cover.Percent > 75 {
			l.id = expression(cover.Match)
		}
	}
	l.text = strings.Join(texts, "\n")
	return l, nil
}

// expression is the licence expression (SPDX 2.3, annex D) for all licences in a file.
func expression(found []licensecheck.Match) string {
	var ids []string
	for _, m := range found {
		if !m.IsURL {
			ids = append(ids, m.ID)
		}
	}
	slices.Sort(ids)
	return strings.Join(slices.Compact(ids), " AND ")
}

// notices writes the licences of all that is linked into a binary, which they want beside it, each text once.
func (r *release) notices(binary string, modules []*debug.Module, licences map[string]licence) error {
	var order []string
	of := map[string][]string{}
	for _, m := range append([]*debug.Module{{Path: stdlib, Version: "of Go"}}, modules...) {
		text := licences[m.Path].text
		if text == "" {
			return fmt.Errorf("%s has no file with a licence", m.Path)
		}
		if of[text] == nil {
			order = append(order, text)
		}
		used := cmp.Or(m.Replace, m)
		of[text] = append(of[text], used.Path+" "+used.Version)
	}
	var out strings.Builder
	out.WriteString("This program contains the following, beside Curfew itself (LICENSE).\n")
	for _, text := range order {
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s", strings.Repeat("=", 80), strings.Join(of[text], "\n"), text)
	}
	return os.WriteFile(noticesOf(binary), []byte(out.String()), 0o644)
}

// noticesOf is where the licences for a binary are.
func noticesOf(binary string) string { return filepath.Join(filepath.Dir(binary), "LICENSES.txt") }
