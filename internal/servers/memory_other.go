//go:build !linux

package servers

func memory() string { return "" }
