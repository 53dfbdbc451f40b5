package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

const allTargets = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64"

// release is one release.
type release struct {
	source  string // the folder of the main module
	out     string
	version string
	date    time.Time // of everything inside
	targets []target
	files   []string // what was written, without the folder
	texts   manual
	env     []string // of the go command, whatever the target
}

// target is a system that a binary is built for.
type target struct{ os, arch string }

func (t target) String() string { return t.os + "_" + t.arch }

func main() {
	log.SetFlags(0)
	source := flag.String("source", "..", "the folder of the source")
	out := flag.String("out", "../dist", "the folder for what is built, which must be empty or not exist")
	version := flag.String("version", "", "the version, like 1.2.3")
	date := flag.Int64("date", 0, "the time of all files, in seconds since 1970, such as that of the commit")
	targets := flag.String("targets", allTargets, "the systems, separated by commas")
	flag.Parse()
	if err := run(*source, *out, *version, *date, *targets); err != nil {
		log.Fatal("release: ", err)
	}
}

func run(source, out, version string, date int64, targets string) error {
	r := &release{source: source, version: version, date: time.Unix(date, 0).UTC()}
	if !regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$`).MatchString(version) {
		return fmt.Errorf("%q is not a version; write it like 1.2.3 or 1.2.3-rc.1", version)
	}
	for name := range strings.SplitSeq(targets, ",") {
		system, arch, ok := strings.Cut(name, "/")
		if !ok || !slices.Contains(strings.Split(allTargets, ","), name) {
			return fmt.Errorf("%q is not one of %s", name, allTargets)
		}
		r.targets = append(r.targets, target{system, arch})
	}
	var err error
	if r.out, err = filepath.Abs(out); err != nil {
		return err
	}
	if old, err := os.ReadDir(r.out); err == nil && len(old) > 0 {
		return fmt.Errorf("%s is not empty", r.out)
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "curfew-release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if r.env, err = environment(); err != nil {
		return err
	}
	if r.texts, err = r.manual(work); err != nil {
		return err
	}
	var images []image
	for _, t := range r.targets {
		log.Print("building ", t)
		binary, err := r.build(work, t)
		if err != nil {
			return err
		}
		info, err := buildinfo.ReadFile(binary)
		if err != nil {
			return err
		}
		licences, err := r.licences(info.Deps)
		if err != nil {
			return err
		}
		if err := r.notices(binary, info.Deps, licences); err != nil {
			return err
		}
		if err := r.sbom(binary, t, info, licences); err != nil {
			return err
		}
		steps := []func(string, target) error{r.archive}
		if t.os == "linux" {
			steps = append(steps, r.packages)
			img, err := r.image(binary, t)
			if err != nil {
				return err
			}
			images = append(images, img)
		}
		for _, step := range steps {
			if err := step(binary, t); err != nil {
				return fmt.Errorf("%s: %w", t, err)
			}
		}
	}
	if len(images) > 0 {
		if err := r.writeImages(images); err != nil {
			return err
		}
	}
	return r.checksums()
}

// build builds a static binary. Nothing in it depends on where, when or by whom it is built.
func (r *release) build(work string, t target) (string, error) {
	binary := filepath.Join(work, t.String(), "curfew")
	if t.os == "windows" {
		binary += ".exe"
	}
	cmd := exec.Command("go", "build", "-mod=readonly", "-trimpath", "-buildvcs=false",
		"-ldflags=-s -w -buildid= -X main.release="+r.version, "-o", binary, "./cmd/curfew")
	cmd.Dir, cmd.Env = r.source, append(slices.Clone(r.env), "GOOS="+t.os, "GOARCH="+t.arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build for %s: %w\n%s", t, err, out)
	}
	return binary, nil
}

// environment is that of the go command: the caller's, without what changes the bytes of a binary. `go env -w` can say
// the same things, so its file is not read either, but for where modules come from and where they are kept.
func environment() ([]string, error) {
	env := os.Environ()
	for _, name := range []string{"GOPATH", "GOMODCACHE", "GOCACHE", "GOPROXY", "GOSUMDB", "GOPRIVATE", "GONOPROXY",
		"GONOSUMDB", "GOINSECURE", "GOVCS", "GOAUTH"} {
		value, err := exec.Command("go", "env", name).Output()
		if err != nil {
			return nil, fmt.Errorf("go env %s: %w", name, err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(value)))
	}
	version, _, _ := strings.Cut(runtime.Version(), " ") // experiments follow
	return append(env, "GOENV=off", "GO111MODULE=on", "GOWORK=off", "GOTOOLCHAIN="+version, "GOFLAGS=", "CGO_ENABLED=0",
		"GOAMD64=v1", "GOARM64=v8.0", "GOEXPERIMENT=", "GOFIPS140=off", "GO_EXTLINK_ENABLED="), nil
}

// create makes a file of the release.
func (r *release) create(name string) (*os.File, error) {
	r.files = append(r.files, name)
	return os.OpenFile(filepath.Join(r.out, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
}

// write makes a file of the release with what fill writes.
func (r *release) write(name string, fill func(io.Writer) error) error {
	f, err := r.create(name)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}

// checksums writes SHA256SUMS, as sha256sum -c reads it.
func (r *release) checksums() error {
	slices.Sort(r.files)
	var sums strings.Builder
	for _, name := range r.files {
		f, err := os.Open(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", h.Sum(nil), name)
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
