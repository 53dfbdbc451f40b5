package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"runtime"
	"strings"

	"go.yaml.in/yaml/v3"
)

const maxFile = 1 << 20 // bytes

// block is one entry under `providers:` or `apps:`.
type block struct {
	at     value
	values map[string]value
}

// readFile reads the one document of the file. It looks up keys in the YAML tree instead of decoding into a struct: so
// every fault has its line, also one that concerns several settings, and reading does not stop at the first.
func (l *loader) readFile() {
	at := value{where: l.file, layer: layerFile}
	l.unread[""] = true
	f, err := os.Open(l.file)
	if err != nil {
		l.faults = append(l.faults, fmt.Errorf("--config: %w", err))
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		l.faults.add(at, errors.New("is not a file"))
		return
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		l.faults.add(at, err)
		return
	case len(b) > maxFile:
		l.faults.add(at, errors.New("has more than 1 MiB"))
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF): // an empty file sets nothing
		delete(l.unread, "")
		return
	case err != nil:
		l.faults.add(at, errors.New(strings.TrimPrefix(err.Error(), "yaml: ")))
		return
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		l.faults.add(at, errors.New("holds more than one document (---); keep one"))
	}
	delete(l.unread, "")
	known := keys(new(Config).settings())
	known["providers"], known["apps"] = true, true
	for key, v := range l.readMap(doc.Content[0], "", known) {
		switch {
		case key == "providers":
			l.providers = l.readList(v, "provider", new(Provider).settings())
		case key == "apps":
			l.apps = l.readList(v, "app", new(app).settings())
		case l.globals[key].layer < layerFile:
			l.globals[key] = v
		}
	}
	l.readableByOthers(info.Mode())
}

// readList reads a list with an entry for each provider, or each app.
func (l *loader) readList(v value, what string, settings []setting) (all []block) {
	n := resolve(v.node)
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		l.faults.add(v, fmt.Errorf("want a list with one entry for each %s", what))
		l.unread[v.path] = true
		return nil
	}
	known := keys(settings)
	for i, item := range n.Content {
		path := fmt.Sprintf("%ss[%d]", what, i)
		all = append(all, block{l.at(item, path), l.readMap(item, path+".", known)})
	}
	return all
}

// readMap returns the values of a map by key. Unknown and repeated keys are faults.
func (l *loader) readMap(n *yaml.Node, path string, known map[string]bool) map[string]value {
	found := map[string]value{}
	if n = resolve(n); n.Kind != yaml.MappingNode {
		l.faults.add(l.at(n, strings.TrimSuffix(path, ".")), errors.New("want settings here, each as `key: value`"))
		return found
	}
	for k, node := range pairs(n) {
		key := k.Value
		v := l.at(k, path+key)
		v.node = node
		before, twice := found[key]
		switch {
		case !known[key]:
			l.faults.add(v, fmt.Errorf("there is no such setting%s", cmp.Or(belongs(key), Nearest(key, known))))
		case twice:
			l.faults.add(v, fmt.Errorf("is there already, at %s", before.where))
		default:
			found[key] = v
		}
	}
	return found
}

// belongs returns a hint to where a setting belongs that is at a wrong place, to put after a message.
func belongs(key string) string {
	switch {
	case keys(new(Provider).settings())[key]:
		return fmt.Sprintf("; it belongs under providers, as in providers: [{%s: …}]", key)
	case keys(new(app).settings())[key]:
		return fmt.Sprintf("; it belongs under apps, as in apps: [{%s: …}]", key)
	case keys(new(Config).settings())[key] || key == "providers" || key == "apps":
		return "; it belongs at the top level of the file"
	}
	return ""
}

func (l *loader) at(n *yaml.Node, path string) value {
	return value{node: n, where: fmt.Sprintf("%s:%d", l.file, n.Line), line: n.Line, path: path, layer: layerFile}
}

// readableByOthers refuses a client secret in a file that other users can read.
func (l *loader) readableByOthers(mode os.FileMode) {
	if mode.Perm()&0o077 == 0 || runtime.GOOS == "windows" {
		return
	}
	for _, b := range l.providers {
		if v, ok := b.values["client_secret"]; ok {
			l.faults.add(v, fmt.Errorf("others can read this file (mode %04o): run chmod 600 %s, or use "+
				"client_secret_file", mode.Perm(), l.file))
		}
	}
}

// keys returns the keys of settings.
func keys(settings []setting) map[string]bool {
	all := map[string]bool{}
	for _, s := range settings {
		all[s.key] = true
	}
	return all
}

// pairs yields the keys of a map and their values. A key that is an alias is what that refers to.
func pairs(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(*yaml.Node, *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := *resolve(n.Content[i])
			key.Line = n.Content[i].Line
			if !yield(&key, n.Content[i+1]) {
				return
			}
		}
	}
}

// resolve returns the node that an alias (*name) refers to, and any other node unchanged.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}
