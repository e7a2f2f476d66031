// SPDX-License-Identifier: Apache-2.0

package storematch

import (
	"net"
	"net/netip"
	"strings"
)

// split takes address apart into its host, in the one spelling that hosts are compared in, and its port,
// "" if there is none.
func split(address string) (canonical, port string) {
	h, port, err := net.SplitHostPort(address)
	if err != nil {
		h, port = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]"), ""
	}
	if ip, err := netip.ParseAddr(h); err == nil {
		return ip.Unmap().String(), port
	}
	return strings.ToLower(strings.TrimSuffix(h, ".")), port
}

func host(address string) string {
	h, _ := split(address)
	return h
}

// endpoint is address in the one spelling that addresses are compared in.
func endpoint(address string) string {
	h, port := split(address)
	if port == "" {
		return h
	}
	return net.JoinHostPort(h, port)
}

// statusAddress is the store's status address, "" where PD does not know the real one: a TiKV that is
// not told its own tells PD 127.0.0.1 or 0.0.0.0.
func (s Store) statusAddress() string {
	if nowhere(host(s.StatusAddress)) && !nowhere(host(s.Address)) {
		return ""
	}
	return s.StatusAddress
}

// nowhere tells whether a host is one that every machine calls itself.
func nowhere(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified())
}

// pod is what TiDB Operator's addresses tell, such as basic-tikv-0.basic-tikv-peer.ns.svc:20160: the pod's name,
// which is the first DNS label, the TiDB cluster and the namespace, "" where the address does not tell.
func (s Store) pod() (name, cluster, namespace string) {
	h := host(s.Address)
	if _, err := netip.ParseAddr(h); err == nil {
		return "", "", ""
	}
	dns := strings.Split(h, ".")
	switch {
	case len(dns) >= 4 && dns[3] == "svc":
		cluster, _ = strings.CutSuffix(dns[1], "-tikv-peer")
		return dns[0], cluster, dns[2]
	case len(dns) == 1:
		return dns[0], "", ""
	default:
		return "", "", "" // The first label of another name is nobody's pod.
	}
}

// pod is the name of the target's pod, or an instance that may be one: it has no port and is no IP address.
func (t Target) pod() string {
	if t.Pod != "" {
		return strings.ToLower(t.Pod)
	}
	h, port := split(t.Instance)
	if _, err := netip.ParseAddr(h); err == nil || port != "" || strings.Contains(h, ".") {
		return ""
	}
	return h
}
