package curfew

import (
	"errors"
	"fmt"
	"slices"

	"example.com/curfew/gateway"
	"example.com/curfew/web"
)

func oneOf(v int, allowed ...int) error {
	if !slices.Contains(allowed, v) {
		return fmt.Errorf("must be one of %v", allowed[1:])
	}
	return nil
}

// checkOrigins checks the origins and replaces them by the form in which they are compared.
func checkOrigins(cfg *Config) error {
	var faults []error
	origins := make([]string, 0, len(cfg.WebSocketOrigins))
	for _, raw := range cfg.WebSocketOrigins {
		origin, err := gateway.ParseOrigin(raw)
		faults, origins = append(faults, err), append(origins, origin)
	}
	cfg.WebSocketOrigins = origins
	return errors.Join(faults...)
}

// checkHosts checks the hosts that the rules of a policy name.
func checkHosts(site *web.Site, patterns []string) error {
	var faults []error
	for _, pattern := range patterns {
		faults = append(faults, site.CheckPattern(pattern))
	}
	return errors.Join(faults...)
}
