//go:build unix

package main

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var every = flag.Bool("every", false, "build for every system, the second time from nothing: takes long")

// TestMain is the command itself where a test runs it so, in a process of its own.
func TestMain(m *testing.M) {
	if mask := os.Getenv("RELEASE_TEST_UMASK"); mask != "" {
		bits, err := strconv.ParseInt(mask, 8, 32)
		if err != nil {
			panic(err)
		}
		setUmask(int(bits))
		main()
		return
	}
	os.Exit(m.Run())
}

// built holds what two people built, who have nothing in common but the source and the release of Go.
func built(t *testing.T, targets string) (one, two string) {
	t.Helper()
	var dist []string
	people := []struct {
		folder string
		aged   time.Duration
		env    []string
	}{
		{"a", 0, []string{"RELEASE_TEST_UMASK=022", "TZ=UTC", "LC_ALL=C", "HOME=" + t.TempDir()}},
		{"another folder", 5 * 365 * 24 * time.Hour, []string{"RELEASE_TEST_UMASK=077", "TZ=Pacific/Kiritimati",
			"LC_ALL=tr_TR.UTF-8", "LANG=tr_TR.UTF-8", "GOMAXPROCS=1", "HOME=" + t.TempDir(), "USER=somebody",
			"GOFLAGS=-tags=x", "GOAMD64=v3", "GOARM64=v9.0", "GOFIPS140=v1.0.0", "GOEXPERIMENT=nogreenteagc",
			"SOURCE_DATE_EPOCH=1", "CURFEW_URL=https://somebody.example.com"}},
	}
	var sources []string
	for _, who := range people { // before anything is built: the source may be edited meanwhile
		source := filepath.Join(t.TempDir(), who.folder)
		copySource(t, source, time.Now().Add(-who.aged))
		sources = append(sources, source)
	}
	for i, who := range people {
		out := filepath.Join(t.TempDir(), "dist")
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-source", sources[i], "-out", out, "-version", "1.2.3",
			"-date", "1700000000", "-targets", targets)
		cmd.Env = os.Environ()
		for _, name := range []string{"GOMODCACHE", "GOCACHE"} { // which are under HOME unless somebody says where
			value, err := exec.Command("go", "env", name).Output()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Env = append(cmd.Env, name+"="+strings.TrimSpace(string(value)))
		}
		if *every && who.aged > 0 { // the other has what this machine has compiled before
			cmd.Env = append(cmd.Env, "GOCACHE="+t.TempDir())
		}
		cmd.Env = append(cmd.Env, who.env...)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		dist = append(dist, out)
	}
	return dist[0], dist[1]
}

// copySource copies what a binary and a package are made of.
func copySource(t *testing.T, to string, date time.Time) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel("..", path)
		if d.IsDir() {
			if slices.Contains([]string{".git", "node_modules", "pip", "dist", "release", "e2e", "bench"}, d.Name()) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, rel), text, 0o644); err != nil {
			return err
		}
		return os.Chtimes(filepath.Join(to, rel), date, date)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAReleaseIsReproducibleAndComplete(t *testing.T) {
	targets := "linux/amd64"
	if *every {
		targets = allTargets
	}
	one, two := built(t, targets)
	names := same(t, one, two)
	sums, err := os.ReadFile(filepath.Join(one, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	summed := []string{"SHA256SUMS"}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		text, err := os.ReadFile(filepath.Join(one, name))
		if err != nil || fmt.Sprintf("%x", sha256.Sum256(text)) != sum {
			t.Errorf("%s: %v, or another checksum", name, err)
		}
		summed = append(summed, name)
	}
	expected := []string{"SHA256SUMS", "curfew_1.2.3_image.tar"}
	for target := range strings.SplitSeq(targets, ",") {
		name := "curfew_1.2.3_" + strings.Replace(target, "/", "_", 1)
		switch system, _, _ := strings.Cut(target, "/"); system {
		case "linux":
			expected = append(expected, name+".deb", name+".rpm", name+".spdx.json", name+".tar.gz")
		case "darwin":
			expected = append(expected, name+".spdx.json", name+".tar.gz")
		default:
			expected = append(expected, name+".spdx.json", name+".zip")
		}
	}
	slices.Sort(expected)
	if !slices.Equal(names, expected) || !slices.Equal(summed, expected) {
		t.Errorf("built %q with the checksums of %q, want %q", names, summed, expected)
	}
	want := []string{"curfew_1.2.3_image.tar", "curfew_1.2.3_linux_amd64.deb", "curfew_1.2.3_linux_amd64.rpm",
		"curfew_1.2.3_linux_amd64.spdx.json", "curfew_1.2.3_linux_amd64.tar.gz"}
	t.Run("archive", func(t *testing.T) { testArchive(t, filepath.Join(one, want[4])) })
	for _, name := range names {
		if strings.HasSuffix(name, ".spdx.json") {
			t.Run(name, func(t *testing.T) { testSBOM(t, filepath.Join(one, name)) })
		}
	}
	t.Run("wrong sbom", func(t *testing.T) { testWrongSBOM(t, filepath.Join(one, want[3])) })
	t.Run("deb", func(t *testing.T) { testDeb(t, filepath.Join(one, want[1])) })
	t.Run("rpm", func(t *testing.T) { testRPM(t, filepath.Join(one, want[2])) })
	t.Run("image", func(t *testing.T) { testImage(t, filepath.Join(one, want[0])) })
	t.Run("container", func(t *testing.T) { testContainer(t, filepath.Join(one, want[0])) })
}

// same compares the files of two folders, and returns their names.
func same(t *testing.T, one, two string) (names []string) {
	t.Helper()
	files, err := os.ReadDir(one)
	if err != nil {
		t.Fatal(err)
	}
	others, err := os.ReadDir(two)
	if err != nil || len(others) != len(files) {
		t.Errorf("%d files, and once more %d: %v", len(files), len(others), err)
	}
	for _, f := range files {
		names = append(names, f.Name())
		a, err := os.ReadFile(filepath.Join(one, f.Name()))
		b, err2 := os.ReadFile(filepath.Join(two, f.Name()))
		if err := errors.Join(err, err2); err != nil {
			t.Error(err)
		} else if !bytes.Equal(a, b) {
			at := 0
			for at < min(len(a), len(b)) && a[at] == b[at] {
				at++
			}
			t.Errorf("%s: %d and %d bytes, which differ from byte %d on", f.Name(), len(a), len(b), at)
		}
	}
	return names
}

// tool runs a program that a machine may lack.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing, and with CI=true that is a failure", name)
		}
		t.Skipf("NOT TESTED: %s is missing", name)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func testArchive(t *testing.T, name string) {
	binary := unpacked(t, strings.TrimSuffix(name, ".tar.gz"))
	out, err := exec.Command(binary, "version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "curfew 1.2.3 (") {
		t.Errorf("version: %v: %s", err, out)
	}
	for _, name := range []string{"LICENSES.txt", "man/curfew.1.gz", "completions/curfew.bash", "completions/curfew.zsh",
		"completions/curfew.fish"} {
		if _, err := os.Stat(filepath.Join(filepath.Dir(binary), name)); err != nil {
			t.Error(err)
		}
	}
	if out := tool(t, "file", binary); !strings.Contains(out, "statically linked") {
		t.Errorf("the binary is not static: %s", out)
	}
	text, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	home, _ := os.UserHomeDir()
	for _, trace := range []string{os.TempDir() + "/", home + "/go/"} {
		if bytes.Contains(text, []byte(trace)) {
			t.Errorf("the binary holds the path %s of this machine", trace)
		}
	}
}

// validate has spdx-tools read a list of what a release contains.
func validate(t *testing.T, name string) (string, error) {
	t.Helper()
	if _, err := os.Stat("spdx/pip/spdx_tools"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("spdx-tools is missing: .ci/deps installs it")
		}
		t.Skip("NOT TESTED: the list against the specification of SPDX: .ci/deps installs spdx-tools")
	}
	cmd := exec.CommandContext(t.Context(), "python3", "spdx/validate.py", name)
	cmd.Env = append(os.Environ(), "PYTHONPATH=spdx/pip", "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// testSBOM has the list of a binary validated, and compares it with what `go version -m` says of the binary.
func testSBOM(t *testing.T, name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var doc spdxDocument
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, p := range doc.Packages[1:] {
		listed[p.Name] = p.Version
		if p.Declared == unknown {
			t.Errorf("the licence of %s is not known", p.Name)
		}
	}
	linked := map[string]string{}
	version := strings.Fields(tool(t, "go", "version", "-m", unpacked(t, strings.TrimSuffix(name, ".spdx.json"))))
	for i, word := range version {
		switch word {
		case "dep":
			linked[version[i+1]] = version[i+2]
		case "path":
			linked[stdlib] = strings.TrimPrefix(version[i-1], "go")
		}
	}
	if len(linked) < 50 || !maps.Equal(listed, linked) {
		t.Errorf("listed %v\nlinked %v", listed, linked)
	}
	if out, err := validate(t, name); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// testWrongSBOM sees faults found in a list.
func testWrongSBOM(t *testing.T, name string) {
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string][2]string{
		"SPDX does not know it":                     {`"versionInfo"`, `"versionInformation"`},
		`the referenced spdx_id "SPDXRef-module-2"`: {`"SPDXRef-module-2"`, `"SPDXRef-nothing"`},
		"Unrecognized license":                      {`"BSD-3-Clause"`, `"BSD-Three"`},
		"parameter download_location":               {`   "downloadLocation": "NOASSERTION",` + "\n", ""},
	} {
		wrong := filepath.Join(t.TempDir(), "wrong.spdx.json")
		if err := os.WriteFile(wrong, bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := validate(t, wrong); err == nil || !strings.Contains(out, what) {
			t.Errorf("with %q in place of %q: %v: %s", change[1], change[0], err, out)
		}
	}
}

// unpacked is the binary of an archive, whose name is without its end.
func unpacked(t *testing.T, archive string) string {
	t.Helper()
	dir := t.TempDir()
	folder := filepath.Base(archive)
	if zipped := archive + ".zip"; strings.Contains(archive, "windows") {
		z, err := zip.OpenReader(zipped)
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		if err := os.CopyFS(dir, z); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, folder, "curfew.exe")
	}
	tool(t, "tar", "-xzf", archive+".tar.gz", "-C", dir)
	return filepath.Join(dir, folder, "curfew")
}

func testDeb(t *testing.T, name string) {
	if out := tool(t, "dpkg-deb", "--info", name); !strings.Contains(out, "Version: 1.2.3\n") ||
		!strings.Contains(out, "Architecture: amd64") {
		t.Error(out)
	}
	dir := t.TempDir()
	tool(t, "dpkg-deb", "--extract", name, dir)
	unit := filepath.Join(dir, "usr/lib/systemd/system/curfew.service")
	for path, mode := range map[string]fs.FileMode{"usr/bin/curfew": 0o755, "etc/curfew/curfew.yaml": 0o644,
		"usr/share/doc/curfew/copyright": 0o644, "usr/share/doc/curfew/LICENSES.txt": 0o644,
		"usr/lib/systemd/system/curfew.service": 0o644,
		"usr/share/man/man1/curfew.1.gz":        0o644, "usr/share/man/man1/curfew-session-end.1.gz": 0o644,
		"usr/share/bash-completion/completions/curfew": 0o644, "usr/share/zsh/vendor-completions/_curfew": 0o644,
		"usr/share/fish/vendor_completions.d/curfew.fish": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	testManual(t, filepath.Join(dir, "usr/share/man/man1/curfew-session-end.1.gz"))
	text, err := os.ReadFile(unit)
	if err != nil || !strings.Contains(string(text), "ExecStart=/usr/bin/curfew serve") {
		t.Errorf("the unit: %v\n%s", err, text)
	}
	// The unit names the binary where the package puts it, which is not on this machine.
	here := strings.ReplaceAll(string(text), "/usr/bin/curfew", filepath.Join(dir, "usr/bin/curfew"))
	if err := os.WriteFile(unit, []byte(here), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := tool(t, "systemd-analyze", "verify", "--man=no", unit); strings.Contains(out, "curfew.service") {
		t.Errorf("systemd-analyze verify: %s", out)
	}
}

// testManual reads a manual page as a package has it: of this release, and with its date, not today's.
func testManual(t *testing.T, name string) {
	if out := tool(t, "man", "-l", name); !strings.Contains(out, "curfew 1.2.3") || !strings.Contains(out, "2023-11-14") {
		t.Errorf("the manual page is\n%s", out)
	}
}

func testRPM(t *testing.T, name string) {
	out := tool(t, "rpm", "--query", "--package", "--list", "--info", name)
	for _, want := range []string{"/usr/bin/curfew\n", "/usr/lib/systemd/system/curfew.service\n",
		"/etc/curfew/curfew.yaml\n", "/usr/share/man/man1/curfew-session-end.1.gz\n",
		"/usr/share/bash-completion/completions/curfew\n", "/usr/share/zsh/site-functions/_curfew\n",
		"/usr/share/fish/vendor_completions.d/curfew.fish\n", "Version     : 1.2.3", "Architecture: x86_64"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// testImage reads the image as the OCI describes it, and lets another program read it.
func testImage(t *testing.T, name string) {
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	layout := map[string][]byte{}
	for in := tar.NewReader(f); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		layout[h.Name], _ = io.ReadAll(in)
	}
	get := func(d descriptor, to any) []byte {
		text := layout["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if digest(text) != d.Digest || len(text) != d.Size {
			t.Fatalf("%s is not what its name says", d.Digest)
		}
		if to != nil {
			if err := json.Unmarshal(text, to); err != nil {
				t.Fatal(err)
			}
		}
		return text
	}
	var index, images struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(layout["index.json"], &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("index.json: %v\n%s", err, layout["index.json"])
	}
	get(index.Manifests[0], &images)
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	get(images.Manifests[0], &manifest)
	var config struct {
		Architecture string
		Config       struct {
			User       string
			Entrypoint []string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	get(manifest.Config, &config)
	if config.Config.User != "65532:65532" || config.Architecture != "amd64" || len(manifest.Layers) != 1 ||
		!slices.Equal(config.Config.Entrypoint, []string{"/usr/bin/curfew"}) {
		t.Errorf("the configuration is %+v", config)
	}
	z, err := gzip.NewReader(bytes.NewReader(get(manifest.Layers[0], nil)))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil || digest(plain) != config.RootFS.DiffIDs[0] {
		t.Errorf("the layer is not what diff_ids says: %v", err)
	}
	files := map[string]*tar.Header{}
	for in := tar.NewReader(bytes.NewReader(plain)); ; {
		h, err := in.Next()
		if err != nil {
			break
		}
		files[h.Name] = h
		if h.Name == certificates {
			text, _ := io.ReadAll(in)
			n := 0
			for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
				n++
			}
			if n < 50 {
				t.Errorf("there are %d CAs", n)
			}
		}
		if h.Mode&0o022 != 0 || h.Mode&0o6000 != 0 {
			t.Errorf("%s has the mode %o", h.Name, h.Mode)
		}
	}
	if h := files[stateFolder+"/"]; h == nil || h.Uid != nobody || h.Mode != 0o700 {
		t.Errorf("the folder of the database is %+v", h)
	}
	for _, forbidden := range []string{"bin/sh", "usr/bin/sh", "bin/busybox"} {
		if files[forbidden] != nil {
			t.Errorf("the image has %s", forbidden)
		}
	}
	t.Run("skopeo", func(t *testing.T) {
		out := tool(t, "skopeo", "inspect", "--override-arch=amd64", "--override-os=linux", "oci-archive:"+name)
		if !strings.Contains(out, `"org.opencontainers.image.version": "1.2.3"`) {
			t.Error(out)
		}
	})
}

// testContainer starts the image, as its own user and in its own root folder. The isolation is that of a chroot, which
// needs no cgroups of its own; a container engine adds to it.
func testContainer(t *testing.T, name string) {
	if os.Getuid() != 0 {
		t.Skip("NOT TESTED: the image is not started: that needs root")
	}
	dir := t.TempDir()
	storage := []string{"--storage-driver", "vfs", "--root", filepath.Join(dir, "root"),
		"--runroot", filepath.Join(dir, "run")}
	buildah := func(args ...string) []string { return append(slices.Clone(storage), args...) }
	id := strings.TrimSpace(tool(t, "buildah", buildah("from", "--quiet", "oci-archive:"+name)...))
	t.Cleanup(func() { tool(t, "buildah", buildah("rm", id)...) })
	state := filepath.Join(dir, "state")
	if err := errors.Join(os.Mkdir(state, 0o700), os.Chown(state, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	within := func(args ...string) []string {
		return buildah(append([]string{"run", "--isolation", "chroot", "--volume", state + ":/" + stateFolder, id, "--"},
			args...)...)
	}
	if out := tool(t, "buildah", within("/usr/bin/curfew", "version")...); !strings.HasPrefix(out, "curfew 1.2.3 (") {
		t.Errorf("version: %s", out)
	}
	if out, err := exec.Command("buildah", within("/bin/sh", "-c", "id")...).CombinedOutput(); err == nil {
		t.Errorf("there is a shell: %s", out)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, "buildah", within("/usr/bin/curfew", "serve", "--url", "http://127.0.0.1:4180",
		"--issuer", "http://127.0.0.1:9", "--client-id", "app", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--store", "sqlite:curfew.db")...)
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return endGroup(cmd.Process) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	private := regexp.MustCompile(`^  private +(http://\S+)`)
	where := ""
	lines := bufio.NewScanner(out)
	for where == "" && lines.Scan() {
		if m := private.FindStringSubmatch(lines.Text()); m != nil {
			where = m[1]
		}
	}
	if where == "" {
		stop()
		cmd.Wait()
		t.Fatalf("it did not start: %s", stderr.String())
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := client.Get(where + "/healthz"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("/healthz: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	info, err := os.Stat(filepath.Join(state, "curfew.db"))
	if err != nil || owner(info) != nobody {
		t.Errorf("the database is not that of the user %d: %v, %v", nobody, info, err)
	}
	stop()
	go io.Copy(io.Discard, out)
	cmd.Wait()
}

func TestAWrongVersionOrTargetIsRefused(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{"": "is not a version", "v1.2.3": "is not a version",
		"1.2": "is not a version", "1.2.3 -X main.x=y": "is not a version"} {
		if err := run("..", t.TempDir(), version, 0, "linux/amd64"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", version, err)
		}
	}
	if err := run("..", t.TempDir(), "1.2.3", 0, "plan9/386"); err == nil || !strings.Contains(err.Error(), "not one of") {
		t.Error(err)
	}
	full := t.TempDir()
	os.WriteFile(filepath.Join(full, "x"), nil, 0o600)
	if err := run("..", full, "1.2.3", 0, "linux/amd64"); err == nil || !strings.Contains(err.Error(), "is not empty") {
		t.Error(err)
	}
}
