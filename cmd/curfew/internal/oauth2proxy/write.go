package oauth2proxy

import (
	"bytes"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is a YAML map whose keys keep their order.
type document struct{ node yaml.Node }

func newDocument() *document { return &document{yaml.Node{Kind: yaml.MappingNode}} }

// set adds a key with a value that YAML can encode, or a *document, or a list of these, and a comment above it.
func (d *document) set(key string, value any, comment ...string) {
	k := &yaml.Node{Kind: yaml.ScalarNode, Value: key}
	if len(comment) > 0 {
		k.HeadComment = "# " + strings.Join(comment, "\n# ")
	}
	d.node.Content = append(d.node.Content, k, encode(value))
}

func (d *document) empty() bool { return len(d.node.Content) == 0 }

func encode(value any) *yaml.Node {
	n := new(yaml.Node)
	switch v := value.(type) {
	case *document:
		return &v.node
	case []*document:
		n.Kind = yaml.SequenceNode
		for _, item := range v {
			n.Content = append(n.Content, &item.node)
		}
	default:
		n.Encode(value) // a text, a number, a boolean, a list or a map: it cannot fail
		short := func(item *yaml.Node) bool { return item.Kind == yaml.ScalarNode && len(item.Value) < 40 }
		if n.Kind == yaml.SequenceNode && len(n.Content) < 6 &&
			!slices.ContainsFunc(n.Content, func(item *yaml.Node) bool { return !short(item) }) {
			n.Style = yaml.FlowStyle
		}
	}
	return n
}

func (d *document) bytes(comment string) ([]byte, error) {
	d.node.HeadComment = comment
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(&d.node); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}
