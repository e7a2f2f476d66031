// SPDX-License-Identifier: Apache-2.0

package storematch

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// splitAddress splits an address into its host and its port, which is "" if there is none. The
// host is normalized, so that equal hosts are equal strings: names are in lower case without a
// trailing dot, IP addresses are in their shortest form, IPv4 addresses mapped to IPv6 are IPv4
// addresses.
func splitAddress(address string) (host, port string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]"), ""
	}

	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String(), port
	}
	return strings.ToLower(strings.TrimSuffix(host, ".")), port
}

// normalize returns an address with its host normalized, so that equal addresses are equal strings.
func normalize(address string) string {
	host, port := splitAddress(address)
	if port == "" {
		return host
	}
	return net.JoinHostPort(host, port)
}

// hostOf returns the normalized host of an address.
func hostOf(address string) string {
	host, _ := splitAddress(address)
	return host
}

// portOf returns the port of an address, or 0 if it has none or it is not a port number.
func portOf(address string) int {
	_, port := splitAddress(address)
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return int(n)
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// isLocal reports whether every machine uses this host for itself: localhost, 127.0.0.1, 0.0.0.0,
// ::1.
func isLocal(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified())
}

// statusAddress returns the store's status address, or "" if PD does not know a usable one. A
// TiKV without advertise-status-addr registers 127.0.0.1:20180 or 0.0.0.0:20180 with PD, and so
// do all others in the cluster. Such an address only counts if the store's own address is local
// too, as in a playground.
func (s Store) statusAddress() string {
	if isLocal(hostOf(s.StatusAddress)) && !isLocal(hostOf(s.Address)) {
		return ""
	}
	return s.StatusAddress
}

// statusPortAllows reports whether the target may be the store's according to the ports alone. It
// is false if PD knows the store's status port and the target has another one: then the target is
// a different process on the same host.
func (s Store) statusPortAllows(t Target) bool {
	storePort, targetPort := portOf(s.statusAddress()), portOf(t.Instance)
	return storePort == 0 || targetPort == 0 || storePort == targetPort
}

// storePod is what an address reveals about the Kubernetes pod of a store. Unknown parts are "".
type storePod struct {
	name      string
	cluster   string // The TiDB cluster.
	namespace string
}

// pod returns the pod in the store's address. TiDB Operator's addresses have all parts:
// basic-tikv-0.basic-tikv-peer.ns.svc:20160 is the pod basic-tikv-0 of the TiDB cluster basic in
// the namespace ns. A host name without dots may be a pod's name. Any other host name is not: the
// first label of tikv-1.a.example.com is unique only within a.example.com.
func (s Store) pod() storePod {
	host := hostOf(s.Address)
	if isIP(host) {
		return storePod{}
	}

	dnsLabels := strings.Split(host, ".")
	switch {
	case len(dnsLabels) >= 4 && dnsLabels[3] == "svc":
		return storePod{
			name:      dnsLabels[0],
			cluster:   strings.TrimSuffix(dnsLabels[1], "-tikv-peer"),
			namespace: dnsLabels[2],
		}
	case len(dnsLabels) == 1:
		return storePod{name: dnsLabels[0]}
	default:
		return storePod{}
	}
}

// podName returns the name of the target's pod, or "" if it is unknown. TiDB Operator's own
// Prometheus has it in the label instance instead of pod, so an instance that is a name without a
// port and without dots counts as well.
func (t Target) podName() string {
	if t.Pod != "" {
		return strings.ToLower(t.Pod)
	}

	host, port := splitAddress(t.Instance)
	if port != "" || isIP(host) || strings.Contains(host, ".") {
		return ""
	}
	return host
}
