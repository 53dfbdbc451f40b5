package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/redis/rueidis"
)

type kind int

const (
	kindSingle kind = iota
	kindCluster
	kindSentinel
)

// address is where the servers are, and how to connect to them.
type address struct {
	kind         kind
	option       rueidis.ClientOption
	prefix       string
	waitReplicas int // -1 when it is not given
}

// CheckAddress reports what is wrong with an address for [Open], without connecting anywhere. It reads the certificates
// that the address names.
func CheckAddress(s string) error {
	_, err := parseAddress(s, nil)
	return err
}

// parseAddress parses an address. It does not use net/url, which has no lists of hosts and whose errors repeat what may
// be a password. So its errors say only which part is wrong.
func parseAddress(s string, config *tls.Config) (address, error) {
	a := address{waitReplicas: -1}
	scheme, rest, ok := strings.Cut(s, "://")
	base, kind, _ := strings.Cut(scheme, "+")
	encrypted := base == "rediss"
	port := "6379"
	switch {
	case !ok || base != "redis" && base != "rediss":
		return a, errors.New("an address begins with redis:// or rediss://, redis+cluster:// or redis+sentinel://")
	case kind == "":
	case kind == "cluster":
		a.kind = kindCluster
	case kind == "sentinel":
		a.kind, port = kindSentinel, "26379"
	default:
		return a, errors.New("an address says +cluster, +sentinel or neither after redis or rediss")
	}
	rest, query, _ := strings.Cut(rest, "?")
	rest, path, _ := strings.Cut(rest, "/")
	var err error
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		user, password, _ := strings.Cut(rest[:at], ":")
		if a.option.Username, err = url.PathUnescape(user); err == nil {
			a.option.Password, err = url.PathUnescape(password)
		}
		if err != nil {
			return a, errors.New("user and password are not encoded as in a URL")
		}
		rest = rest[at+1:]
	}
	for host := range strings.SplitSeq(rest, ",") {
		if a.option.InitAddress, err = appendHost(a.option.InitAddress, host, port); err != nil {
			return a, err
		}
	}
	if err := a.setPath(path); err != nil {
		return a, err
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return a, errors.New("what follows the question mark is not encoded as in a URL")
	}
	return a, a.setOptions(q, encrypted, config)
}

func appendHost(hosts []string, host, port string) ([]string, error) {
	h, p, err := net.SplitHostPort(host)
	if err != nil {
		h, p = strings.Trim(host, "[]"), port
	}
	if _, err := strconv.ParseUint(p, 10, 16); err != nil || h == "" || strings.ContainsAny(h, " @?#") {
		return nil, errors.New("an address names its hosts as host:port, with commas between them")
	}
	return append(hosts, net.JoinHostPort(h, p)), nil
}

// setPath reads what follows the hosts: the master's name for sentinels, and a database.
func (a *address) setPath(path string) error {
	if a.kind == kindSentinel {
		var master string
		master, path, _ = strings.Cut(path, "/")
		if master == "" {
			return errors.New("an address of sentinels ends with the name of the master: " +
				"redis+sentinel://host:port,…/NAME")
		}
		a.option.Sentinel.MasterSet = master
	}
	if a.kind == kindSingle {
		if len(a.option.InitAddress) > 1 {
			return errors.New("several hosts are those of a Cluster or of sentinels: redis+cluster:// or " +
				"redis+sentinel://")
		}
		a.option.ForceSingleClient = true
	}
	if path == "" {
		return nil
	}
	db, err := strconv.ParseUint(path, 10, 16)
	if err != nil || a.kind == kindCluster {
		return errors.New("after the hosts there is only a database's number; a Cluster has none")
	}
	a.option.SelectDB = int(db)
	return nil
}

// setOptions reads what follows the question mark.
func (a *address) setOptions(q url.Values, encrypted bool, config *tls.Config) error {
	for name, values := range q {
		switch name {
		case "cacert", "cert", "key":
			if !encrypted {
				return fmt.Errorf("%s is of use only with rediss", name)
			}
		case "sentinel_user", "sentinel_password":
			if a.kind != kindSentinel {
				return fmt.Errorf("%s is of use only with sentinels", name)
			}
		case "prefix", "wait_replicas":
		default:
			return errors.New("after the question mark there may be cacert, cert, key, sentinel_user, " +
				"sentinel_password, prefix and wait_replicas")
		}
		if len(values) != 1 || values[0] == "" {
			return fmt.Errorf("%s is given once, with a value", name)
		}
	}
	a.option.Sentinel.Username, a.option.Sentinel.Password = q.Get("sentinel_user"), q.Get("sentinel_password")
	a.prefix = q.Get("prefix")
	if n := q.Get("wait_replicas"); n != "" {
		replicas, err := strconv.ParseUint(n, 10, 8)
		if err != nil {
			return errors.New("wait_replicas is a number")
		}
		a.waitReplicas = int(replicas)
	}
	if !encrypted {
		return nil
	}
	config, err := tlsConfig(config, q.Get("cacert"), q.Get("cert"), q.Get("key"))
	a.option.TLSConfig, a.option.Sentinel.TLSConfig = config, config
	return err
}

func tlsConfig(base *tls.Config, ca, cert, key string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		config = base.Clone()
	}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("cacert: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("cacert: there is no certificate in it")
		}
	}
	if (cert == "") != (key == "") {
		return nil, errors.New("cert and key go together")
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert and key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
