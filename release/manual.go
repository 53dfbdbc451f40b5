package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// manual is what a machine reads about the program's commands, made by the program itself.
type manual struct {
	pages  []string          // files, compressed
	shells map[string]string // the file with the completion, by shell
}

// manual makes the manual pages and the completions, in a folder of its own.
func (r *release) manual(work string) (manual, error) {
	m := manual{shells: map[string]string{}}
	binary, err := r.build(filepath.Join(work, "here"), target{runtime.GOOS, runtime.GOARCH})
	if err != nil {
		return m, err
	}
	ask := func(args ...string) ([]byte, error) {
		cmd := exec.Command(binary, args...)
		cmd.Env = []string{"SOURCE_DATE_EPOCH=" + strconv.FormatInt(r.date.Unix(), 10), "TZ=UTC"} // nothing of the caller's
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("curfew %s: %w", strings.Join(args, " "), err)
		}
		return out, nil
	}
	dir := filepath.Join(work, "man")
	if _, err := ask("man", dir); err != nil {
		return m, err
	}
	plain, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		return m, err
	}
	for _, name := range plain {
		text, err := os.ReadFile(name)
		if err != nil {
			return m, err
		}
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression) // without a time
		if err != nil {
			return m, err
		}
		if _, err := z.Write(text); err != nil {
			return m, err
		}
		if err := z.Close(); err != nil {
			return m, err
		}
		if err := os.WriteFile(name+".gz", packed.Bytes(), 0o644); err != nil {
			return m, err
		}
		m.pages = append(m.pages, name+".gz")
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		text, err := ask("completion", shell)
		if err != nil {
			return m, err
		}
		name := filepath.Join(work, "completion."+shell)
		if err := os.WriteFile(name, text, 0o644); err != nil {
			return m, err
		}
		m.shells[shell] = name
	}
	return m, nil
}
