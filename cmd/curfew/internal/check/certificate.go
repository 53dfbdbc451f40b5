package check

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"
)

// certificateWarning is how long before its end a certificate is warned of.
const certificateWarning = 14 * 24 * time.Hour

// checkChain examines a certificate and those of its issuers that are shown with it: when they are valid, and that they
// may be used for what they are here. It reports what is wrong, and returns the certificate and when the first of them
// runs out; nil if one cannot be read.
func checkChain(r *Report, check, name string, chain [][]byte, usage x509.ExtKeyUsage, renew string) (
	leaf *x509.Certificate, ends time.Time,
) {
	var first, last, other *x509.Certificate // the first to run out, the last to begin, one that is for something else
	for i, der := range chain {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			r.fault(check, fmt.Sprintf("%s: certificate %d of %d cannot be read: %v", name, i+1, len(chain), err), renew)
			return nil, time.Time{}
		}
		if i == 0 {
			leaf, first, last = cert, cert, cert
		}
		if cert.NotAfter.Before(first.NotAfter) {
			first = cert
		}
		if cert.NotBefore.After(last.NotBefore) {
			last = cert
		}
		if other == nil && !mayBe(cert, usage) {
			other = cert
		}
	}
	// whose says which one it is of, if it is not the certificate itself.
	whose := func(cert *x509.Certificate) string {
		if cert == leaf {
			return ""
		}
		return fmt.Sprintf(" (its issuer %s)", cert.Subject)
	}
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	now := time.Now()
	early := now.Before(last.NotBefore)
	if early {
		r.fault(check, fmt.Sprintf("%s is not valid before %s%s", name, at(last.NotBefore), whose(last)),
			"nobody takes it yet: see that the clock is right, or wait")
	}
	switch {
	case now.After(first.NotAfter):
		r.fault(check, fmt.Sprintf("%s ran out at %s%s", name, at(first.NotAfter), whose(first)), "nobody takes it: "+renew)
	case first.NotAfter.Sub(now) < certificateWarning && !early:
		r.warn(check, fmt.Sprintf("%s runs out at %s%s", name, at(first.NotAfter), whose(first)), renew)
	}
	if other != nil {
		what := map[x509.ExtKeyUsage]string{x509.ExtKeyUsageClientAuth: "clientAuth",
			x509.ExtKeyUsageServerAuth: "serverAuth"}[usage]
		r.warn(check, fmt.Sprintf("%s is for something else: its extended key usage lacks %s%s", name, what, whose(other)),
			"most refuse it: get one with "+what)
	}
	return leaf, first.NotAfter
}

// mayBe reports whether a certificate may be used so: it says nothing of its use, or that (RFC 5280 §4.2.1.12).
func mayBe(cert *x509.Certificate, usage x509.ExtKeyUsage) bool {
	return len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) == 0 || slices.Contains(cert.ExtKeyUsage, usage) ||
		slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}
