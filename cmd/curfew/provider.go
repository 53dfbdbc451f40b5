package main

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"example.com/curfew/oidc"
)

// provider is one provider of the configuration.
type provider struct {
	oidc.Config

	encryptionAlg, encryptionEnc string
	decryptionKey                any
}

// set makes a setter for something that package oidc has rules about: they are asked about this one thing alone, so
// that a fault can be shown at its line.
func (p *provider) set(apply func(*oidc.Config, string)) func(value) error {
	return parsed(func(s string) error {
		probe := oidc.Config{Name: "main", Issuer: "https://provider.invalid", ClientID: "client"}
		apply(&probe, s)
		if _, err := oidc.New(probe); err != nil {
			// Which provider it is, the place of the fault says better.
			return errors.New(strings.ReplaceAll(flat(err).Error(), fmt.Sprintf("provider %q: ", probe.Name), ""))
		}
		apply(&p.Config, s)
		return nil
	})
}

func (p *provider) setScopes(v value) error {
	all, err := v.list()
	if err != nil {
		return err
	}
	return p.set(func(c *oidc.Config, _ string) { c.Scopes = all })(value{text: "list"})
}

func (p *provider) setUserinfo(v value) error {
	var when string
	if err := oneOf(&when, "always", "never")(v); err != nil {
		return err
	}
	p.SkipUserinfo = when == "never"
	return nil
}

func (p *provider) readSecret(v value) error {
	return parsed(func(name string) error {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		p.ClientSecret = strings.TrimRight(string(b), "\r\n")
		if p.ClientSecret == "" {
			return fmt.Errorf("%s is empty; write the client secret into it", name)
		}
		return nil
	})(v)
}

func (p *provider) readDecryptionKey(v value) error {
	return parsed(func(name string) error {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		block, _ := pem.Decode(b)
		if block == nil {
			return fmt.Errorf("%s holds no PEM block", name)
		}
		if p.decryptionKey, err = parseKey(block.Bytes); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})(v)
}

func parseKey(der []byte) (any, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		switch k.(type) {
		case *rsa.PrivateKey, *ecdsa.PrivateKey:
			return k, nil
		}
		return nil, errors.New("want an RSA or an EC private key")
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	return nil, errors.New("want a private key without a passphrase, as PKCS#8, PKCS#1 or SEC 1")
}

// setRequire reads a map of claims to a value or a list of values, also as text (`{groups: [staff]}`).
func (p *provider) setRequire(v value) error {
	n := v.node
	if n == nil {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(v.text), &doc); err != nil || len(doc.Content) != 1 {
			return errors.New("want claims and their values, like {groups: [staff]}")
		}
		n = doc.Content[0]
	}
	if n = resolve(n); n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return errors.New("want claims and their values, like {groups: [staff]}")
	}
	p.Require = make(map[string][]any)
	for i := 0; i < len(n.Content); i += 2 {
		claim := n.Content[i].Value
		if _, twice := p.Require[claim]; twice {
			return fmt.Errorf("the claim %q is there twice", claim)
		}
		accepted := []*yaml.Node{resolve(n.Content[i+1])}
		if accepted[0].Kind == yaml.SequenceNode {
			accepted = accepted[0].Content
		}
		for _, a := range accepted {
			var one any
			if err := resolve(a).Decode(&one); err != nil || resolve(a).Kind != yaml.ScalarNode || one == nil {
				return fmt.Errorf("%s: want a text, a number, true or false, or a list of these", claim)
			}
			if _, inexact := one.(float64); inexact && json.Valid([]byte(resolve(a).Value)) {
				one = json.Number(resolve(a).Value) // with all its digits
			}
			p.Require[claim] = append(p.Require[claim], one)
		}
		if len(p.Require[claim]) == 0 {
			return fmt.Errorf("%s: the list is empty, so nobody could sign in", claim)
		}
	}
	return nil
}

// finish puts together what takes more than one setting, and holds it against all the rules of package oidc.
func (p *provider) finish() error {
	if p.encryptionAlg != "" || p.encryptionEnc != "" || p.decryptionKey != nil {
		if p.encryptionAlg == "" || p.decryptionKey == nil {
			return errors.New("encrypted ID Tokens need id_token_encrypted_response_alg and decryption_key_file, both")
		}
		p.Encryption = &oidc.Encryption{Alg: p.encryptionAlg, Enc: p.encryptionEnc, Key: p.decryptionKey}
	}
	_, err := oidc.New(p.Config)
	if err != nil {
		return flat(err)
	}
	return nil
}

// quirks returns the departures from the standards that are in force, as they are written in the file.
func (p *provider) quirks() []string {
	var all []string
	add := func(on bool, text string) {
		if on {
			all = append(all, text)
		}
	}
	q := p.Quirks
	add(q.AllowMissingExp, "allow_missing_exp: true")
	add(q.LogoutSigningAlg != "", "logout_token_signed_response_alg: "+q.LogoutSigningAlg)
	add(q.RequireTyp, "require_typ: true")
	add(q.LogoutScope == "subject", "logout_scope: subject")
	add(q.SIDFromTokenResponse, "sid_from_token_response: true")
	return all
}
