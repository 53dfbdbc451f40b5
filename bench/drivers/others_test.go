//go:build !ncruces

package drivers

func ncruces() []driver { return nil }
