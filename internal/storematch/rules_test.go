// SPDX-License-Identifier: Apache-2.0

package storematch_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// matchCase is a call of MatchStores. Stores and targets are written as parseStore and
// parseTarget read them.
type matchCase struct {
	name    string
	stores  []string
	targets []string
	want    []string // For each store the instance of its target, noTarget or ambiguous.
}

const (
	noTarget  = ""
	ambiguous = "?"
)

// Addresses of pods, as TiDB Operator writes them.
const (
	pod0 = "basic-tikv-0.basic-tikv-peer.ns.svc:20160"
	pod1 = "basic-tikv-1.basic-tikv-peer.ns.svc:20160"
)

// decidedBy has the rules that decided a store in any case.
var decidedBy = map[string]bool{}

// If all tests have run, each rule must have decided a store in one of them.
func TestMain(m *testing.M) {
	code := m.Run()

	ranAll := true
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz"} {
		ranAll = ranAll && flag.Lookup(name).Value.String() == ""
	}

	for _, rule := range storematch.RuleNames() {
		if ranAll && !decidedBy[rule] {
			fmt.Fprintf(os.Stderr, "internal/storematch/rules_test.go: add cases that the rule %q matches\n", rule)
			code = 1
		}
	}
	os.Exit(code)
}

// Stores and targets of TiUP and bare TiKV have the same host and different ports.
func TestMatchByHost(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:    "TiUP",
			stores:  []string{"10.0.0.1:20160"},
			targets: []string{"tikv 10.0.0.1:20180"},
			want:    []string{"10.0.0.1:20180"},
		}, {
			name:    "TiUP with status address",
			stores:  []string{"10.0.0.1:20160 status=10.0.0.1:20180"},
			targets: []string{"tikv 10.0.0.1:20180"},
			want:    []string{"10.0.0.1:20180"},
		}, {
			name:    "TiUP with three hosts",
			stores:  []string{"10.0.0.1:20160", "10.0.0.2:20160", "10.0.0.3:20160"},
			targets: []string{"tikv 10.0.0.3:20180", "tikv 10.0.0.1:20180", "tikv 10.0.0.2:20180"},
			want:    []string{"10.0.0.1:20180", "10.0.0.2:20180", "10.0.0.3:20180"},
		}, {
			name:    "host name is a prefix of others",
			stores:  []string{"tikv-1:20160"},
			targets: []string{"tikv tikv-10:20180", "tikv tikv-11:20180"},
			want:    []string{noTarget},
		}, {
			name:    "IP address is a prefix of others",
			stores:  []string{"10.0.0.1:20160"},
			targets: []string{"tikv 10.0.0.10:20180", "tikv 10.0.0.11:20180"},
			want:    []string{noTarget},
		}, {
			name:    "IP address is a suffix of another",
			stores:  []string{"0.0.0.1:20160"},
			targets: []string{"tikv 10.0.0.0.1:20180"},
			want:    []string{noTarget},
		}, {
			name:    "dot is not a wildcard",
			stores:  []string{"10.0.0.1:20160"},
			targets: []string{"tikv 10a0b0c1:20180"},
			want:    []string{noTarget},
		}, {
			name:    "host names are prefixes of each other",
			stores:  []string{"tikv-1:20160", "tikv-10:20160", "tikv-11:20160"},
			targets: []string{"tikv tikv-11:20180", "tikv tikv-1:20180", "tikv tikv-10:20180"},
			want:    []string{"tikv-1:20180", "tikv-10:20180", "tikv-11:20180"},
		}, {
			name:    "target is missing and that of a similar host exists",
			stores:  []string{"tikv-1:20160", "tikv-10:20160"},
			targets: []string{"tikv tikv-10:20180"},
			want:    []string{noTarget, "tikv-10:20180"},
		}, {
			name:    "custom ports",
			stores:  []string{"h:1234"},
			targets: []string{"tikv h:4321"},
			want:    []string{"h:4321"},
		}, {
			name:    "two targets on the host of one store",
			stores:  []string{"h:20160"},
			targets: []string{"tikv h:20180", "tikv h:20181"},
			want:    []string{ambiguous},
		}, {
			name:    "two targets on the host and a status address",
			stores:  []string{"h:20160 status=h:20181"},
			targets: []string{"tikv h:20180", "tikv h:20181"},
			want:    []string{"h:20181"},
		}, {
			name:    "two targets on the host and a status address with another host name",
			stores:  []string{"h:20160 status=10.0.0.1:20181"},
			targets: []string{"tikv h:20180", "tikv h:20181"},
			want:    []string{"h:20181"},
		}, {
			name:    "two targets on the host and one is past",
			stores:  []string{"h:20160"},
			targets: []string{"tikv h:20180 past", "tikv h:20181"},
			want:    []string{ambiguous},
		}, {
			name:    "two stores on the host of one target",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"tikv h:20180"},
			want:    []string{ambiguous, ambiguous},
		}, {
			name:    "two stores on the host of one target and status addresses",
			stores:  []string{"h:20160 status=h:20180", "h:20161 status=h:20181"},
			targets: []string{"tikv h:20181"},
			want:    []string{noTarget, "h:20181"},
		}, {
			name:    "target on the host has another port than the status address",
			stores:  []string{"h:20160 status=h:20180"},
			targets: []string{"tikv h:20181"},
			want:    []string{noTarget},
		},
	})
}

// Several stores on one host are distinguished by their ports.
func TestMatchByPortOffset(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:    "status addresses swap the ports",
			stores:  []string{"h:20160 status=h:20181", "h:20161 status=h:20180"},
			targets: []string{"tikv h:20180", "tikv h:20181"},
			want:    []string{"h:20181", "h:20180"},
		}, {
			name:    "equal offsets",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"tikv h:20181", "tikv h:20180"},
			want:    []string{"h:20180", "h:20181"},
		}, {
			name:    "equal offsets and distant ports",
			stores:  []string{"h:20160", "h:21160", "h:30160"},
			targets: []string{"tikv h:30180", "tikv h:20180", "tikv h:21180"},
			want:    []string{"h:20180", "h:21180", "h:30180"},
		}, {
			name:    "equal negative offsets",
			stores:  []string{"h:20181", "h:20180"},
			targets: []string{"tikv h:20160", "tikv h:20161"},
			want:    []string{"h:20161", "h:20160"},
		}, {
			name:    "different offsets",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"tikv h:20180", "tikv h:20190"},
			want:    []string{ambiguous, ambiguous},
		}, {
			name:    "one target is missing",
			stores:  []string{"h:20160", "h:20161", "h:20162"},
			targets: []string{"tikv h:20180", "tikv h:20181"},
			want:    []string{ambiguous, ambiguous, ambiguous},
		}, {
			name:    "one target too many",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"tikv h:20180", "tikv h:20181", "tikv h:20182"},
			want:    []string{ambiguous, ambiguous},
		}, {
			name:    "two hosts",
			stores:  []string{"h:20160", "h:20161", "i:20160", "i:20161"},
			targets: []string{"tikv h:20180", "tikv h:20181", "tikv i:20180", "tikv i:20181"},
			want:    []string{"h:20180", "h:20181", "i:20180", "i:20181"},
		}, {
			name:    "different offsets on different hosts",
			stores:  []string{"h:20160", "i:20160", "i:20161"},
			targets: []string{"tikv h:9", "tikv i:20180", "tikv i:20181"},
			want:    []string{"h:9", "i:20180", "i:20181"},
		}, {
			name:    "one past target too many",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"tikv h:20180", "tikv h:20181", "tikv h:20182 past"},
			want:    []string{"h:20180", "h:20181"},
		}, {
			name:    "one target is past",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"tikv h:20180 past", "tikv h:20181"},
			want:    []string{"h:20180", "h:20181"},
		}, {
			name:    "ports are shifted by one store",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"tikv h:20181", "tikv h:20182"},
			want:    []string{ambiguous, ambiguous},
		}, {
			name:    "ports of live targets are shifted by one store",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"tikv h:20180 past", "tikv h:20181", "tikv h:20182"},
			want:    []string{ambiguous, ambiguous},
		}, {
			name:    "custom offset",
			stores:  []string{"h:1", "h:2"},
			targets: []string{"tikv h:101", "tikv h:102"},
			want:    []string{"h:101", "h:102"},
		}, {
			name:    "one store has no port",
			stores:  []string{"h", "h:20161"},
			targets: []string{"tikv h:20180", "tikv h:20181"},
			want:    []string{ambiguous, ambiguous},
		}, {
			name:    "equal offsets contradict the status ports",
			stores:  []string{"h:20160 status=x:20181", "h:20161 status=x:20180"},
			targets: []string{"tikv h:20180", "tikv h:20181"},
			want:    []string{"h:20181", "h:20180"},
		}, {
			name:    "playground",
			stores:  []string{"127.0.0.1:20160", "127.0.0.1:20161", "127.0.0.1:20162"},
			targets: []string{"tikv 127.0.0.1:20180", "tikv 127.0.0.1:20181", "tikv 127.0.0.1:20182"},
			want:    []string{"127.0.0.1:20180", "127.0.0.1:20181", "127.0.0.1:20182"},
		}, {
			name: "playground with status addresses",
			stores: []string{
				"127.0.0.1:20160 status=127.0.0.1:20181",
				"127.0.0.1:20161 status=127.0.0.1:20180",
			},
			targets: []string{"tikv 127.0.0.1:20180", "tikv 127.0.0.1:20181"},
			want:    []string{"127.0.0.1:20181", "127.0.0.1:20180"},
		},
	})
}

// PD knows the status address.
func TestMatchByStatusAddress(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:    "status address on another host",
			stores:  []string{"h:20160 status=m:20180"},
			targets: []string{"tikv m:20180", "tikv h:20180"},
			want:    []string{"m:20180"},
		}, {
			name:    "loopback status address of several stores",
			stores:  []string{"a:20160 status=127.0.0.1:20180", "b:20160 status=127.0.0.1:20180"},
			targets: []string{"tikv a:20180", "tikv b:20180"},
			want:    []string{"a:20180", "b:20180"},
		}, {
			name:    "loopback status address and a target on loopback",
			stores:  []string{"a:20160 status=127.0.0.1:20180"},
			targets: []string{"tikv 127.0.0.1:20180"},
			want:    []string{noTarget},
		}, {
			name:    "unspecified IPv4 status address",
			stores:  []string{"a:20160 status=0.0.0.0:20180"},
			targets: []string{"tikv a:9999"},
			want:    []string{"a:9999"},
		}, {
			name:    "unspecified IPv6 status address",
			stores:  []string{"a:20160 status=[::]:20180"},
			targets: []string{"tikv a:20180"},
			want:    []string{"a:20180"},
		}, {
			name:    "localhost as the status address",
			stores:  []string{"a:20160 status=localhost:20180"},
			targets: []string{"tikv localhost:20180", "tikv a:20180"},
			want:    []string{"a:20180"},
		}, {
			name:    "same status address of two stores",
			stores:  []string{"a:20160 status=x:20180", "b:20160 status=x:20180"},
			targets: []string{"tikv x:20180"},
			want:    []string{ambiguous, ambiguous},
		},
	})
}

// The same address is spelled differently.
func TestMatchNormalizesAddresses(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:    "letter case",
			stores:  []string{"TiKV-A.Example.com:20160"},
			targets: []string{"tikv tikv-a.example.COM:20180"},
			want:    []string{"tikv-a.example.COM:20180"},
		}, {
			name:    "trailing dot",
			stores:  []string{"tikv-1.example.com.:20160"},
			targets: []string{"tikv tikv-1.example.com:20180"},
			want:    []string{"tikv-1.example.com:20180"},
		}, {
			name:    "IPv6",
			stores:  []string{"[2001:db8:0::1]:20160"},
			targets: []string{"tikv [2001:DB8::1]:20180"},
			want:    []string{"[2001:DB8::1]:20180"},
		}, {
			name:    "IPv6 with status address",
			stores:  []string{"[2001:db8::1]:20160 status=[2001:db8::1]:20180"},
			targets: []string{"tikv [2001:db8::1]:20180"},
			want:    []string{"[2001:db8::1]:20180"},
		}, {
			name:    "IPv6 address is a prefix of another",
			stores:  []string{"[2001:db8::1]:20160"},
			targets: []string{"tikv [2001:db8::10]:20180"},
			want:    []string{noTarget},
		}, {
			name:    "IPv6 with several stores per host",
			stores:  []string{"[::1]:20160", "[::1]:20161"},
			targets: []string{"tikv [::1]:20181", "tikv [::1]:20180"},
			want:    []string{"[::1]:20180", "[::1]:20181"},
		}, {
			name:    "IPv4 mapped to IPv6",
			stores:  []string{"[::ffff:10.0.0.1]:20160"},
			targets: []string{"tikv 10.0.0.1:20180"},
			want:    []string{"10.0.0.1:20180"},
		}, {
			name:    "address without a port",
			stores:  []string{"tikv-1"},
			targets: []string{"tikv tikv-1:20180"},
			want:    []string{"tikv-1:20180"},
		}, {
			name:    "instance without a port",
			stores:  []string{"tikv-1:20160"},
			targets: []string{"tikv tikv-1"},
			want:    []string{"tikv-1"},
		}, {
			name:    "short name is not the full name",
			stores:  []string{"tikv-1.example.com:20160"},
			targets: []string{"tikv tikv-1:20180"},
			want:    []string{noTarget},
		},
	})
}

// Hosts are container names. The oldest version uses a Pushgateway.
func TestMatchDockerCompose(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:    "container names",
			stores:  []string{"tikv0:20160", "tikv1:20160", "tikv10:20160"},
			targets: []string{"tikv tikv0:20180", "tikv tikv1:20180", "tikv tikv10:20180"},
			want:    []string{"tikv0:20180", "tikv1:20180", "tikv10:20180"},
		}, {
			name:    "IP address",
			stores:  []string{"192.168.199.116:20160"},
			targets: []string{"tikv 192.168.199.116:20180"},
			want:    []string{"192.168.199.116:20180"},
		}, {
			name:    "Pushgateway jobs",
			stores:  []string{"tikv0:20160", "tikv1:20160"},
			targets: []string{"tikv_1 tikv0", "tikv_4 tikv1"},
			want:    []string{"tikv0", "tikv1"},
		}, {
			name:    "target on the port for clients",
			stores:  []string{"tikv-1:20160"},
			targets: []string{"tikv tikv-1:20160", "tikv tikv-1:20180"},
			want:    []string{"tikv-1:20160"},
		},
	})
}

// Stores run in Kubernetes, with TiDB Operator or a ServiceMonitor.
func TestMatchByPodName(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:   "TiDB Operator",
			stores: []string{pod0, pod1},
			targets: []string{
				"ns-basic-tikv basic-tikv-1 ns=ns cluster=basic",
				"ns-basic-tikv basic-tikv-0 ns=ns cluster=basic",
			},
			want: []string{"basic-tikv-0", "basic-tikv-1"},
		}, {
			name:    "TiDB Operator with status address",
			stores:  []string{pod0 + " status=basic-tikv-0.basic-tikv-peer.ns.svc:20180"},
			targets: []string{"ns-basic-tikv basic-tikv-0 ns=ns"},
			want:    []string{"basic-tikv-0"},
		}, {
			name:    "instance is the only label",
			stores:  []string{pod0},
			targets: []string{"j basic-tikv-0"},
			want:    []string{"basic-tikv-0"},
		}, {
			name:    "pod name is a prefix of others",
			stores:  []string{pod1},
			targets: []string{"j basic-tikv-10", "j basic-tikv-11"},
			want:    []string{noTarget},
		}, {
			name:    "same pod name in another namespace",
			stores:  []string{pod0},
			targets: []string{"j basic-tikv-0 ns=other"},
			want:    []string{noTarget},
		}, {
			name:    "same pod name in two namespaces",
			stores:  []string{pod0, "basic-tikv-0.basic-tikv-peer.other.svc:20160"},
			targets: []string{"other-basic-tikv basic-tikv-0 ns=other", "ns-basic-tikv basic-tikv-0 ns=ns"},
			want:    []string{"basic-tikv-0", "basic-tikv-0"},
		}, {
			name:    "same pod name in two jobs without namespace",
			stores:  []string{pod0},
			targets: []string{"a basic-tikv-0", "b basic-tikv-0"},
			want:    []string{ambiguous},
		}, {
			name:    "same pod name in two clusters without namespace",
			stores:  []string{pod0},
			targets: []string{"a basic-tikv-0 cluster=other", "b basic-tikv-0 cluster=basic"},
			want:    []string{"basic-tikv-0"},
		}, {
			name:    "same pod name in two clusters with namespace in the cluster label",
			stores:  []string{pod0},
			targets: []string{"a basic-tikv-0 cluster=ns-other", "b basic-tikv-0 cluster=ns-basic"},
			want:    []string{"basic-tikv-0"},
		}, {
			name:    "cluster label with another meaning",
			stores:  []string{pod0},
			targets: []string{"j basic-tikv-0 ns=ns cluster=eu-west-1"},
			want:    []string{"basic-tikv-0"},
		}, {
			name:    "address with cluster domain",
			stores:  []string{"basic-tikv-0.basic-tikv-peer.ns.svc.cluster.local:20160"},
			targets: []string{"j basic-tikv-0 ns=ns"},
			want:    []string{"basic-tikv-0"},
		}, {
			name:    "same pod name in another namespace and in the same one",
			stores:  []string{pod0},
			targets: []string{"a basic-tikv-0 ns=x", "b basic-tikv-0 ns=ns"},
			want:    []string{"basic-tikv-0"},
		}, {
			name:   "ServiceMonitor with pod label",
			stores: []string{pod0, pod1},
			targets: []string{
				"tikv 10.1.0.7:20180 pod=basic-tikv-1 ns=ns",
				"tikv 10.1.0.8:20180 pod=basic-tikv-0 ns=ns",
			},
			want: []string{"10.1.0.8:20180", "10.1.0.7:20180"},
		}, {
			name:   "ServiceMonitor and the pod has moved",
			stores: []string{pod0},
			targets: []string{
				"tikv 10.1.0.7:20180 pod=basic-tikv-0 ns=ns past",
				"tikv 10.1.0.9:20180 pod=basic-tikv-0 ns=ns",
			},
			want: []string{"10.1.0.9:20180"},
		}, {
			name:   "ServiceMonitor and the pod has moved and is down",
			stores: []string{pod0},
			targets: []string{
				"tikv 10.1.0.7:20180 pod=basic-tikv-0 ns=ns past",
				"tikv 10.1.0.9:20180 pod=basic-tikv-0 ns=ns past",
			},
			want: []string{ambiguous},
		}, {
			name:    "IP address is not a pod name",
			stores:  []string{"10.0.0.1:20160"},
			targets: []string{"tikv 10"},
			want:    []string{noTarget},
		}, {
			name:    "same first DNS label in two domains",
			stores:  []string{"tikv-1.a.example.com:20160", "tikv-1.b.example.com:20160"},
			targets: []string{"tikv tikv-1"},
			want:    []string{noTarget, noTarget},
		}, {
			name:    "cluster label with another namespace",
			stores:  []string{pod0},
			targets: []string{"j basic-tikv-0 cluster=other-basic"},
			want:    []string{noTarget},
		}, {
			name:    "past pod and live pod in different namespaces",
			stores:  []string{"basic-tikv-0:20160"},
			targets: []string{"a basic-tikv-0 ns=a past", "b basic-tikv-0 ns=b"},
			want:    []string{ambiguous},
		},
	})
}

// The configuration names the instance.
func TestMatchByConfiguredInstance(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:    "one of two stores on a host is configured",
			stores:  []string{"h:20160 instance=h:20181", "h:20161"},
			targets: []string{"tikv h:20180", "tikv h:20181"},
			want:    []string{"h:20181", "h:20180"},
		}, {
			name:    "configured instance does not exist",
			stores:  []string{"h:20160 instance=h:1"},
			targets: []string{"tikv h:20180"},
			want:    []string{noTarget},
		}, {
			name:    "configured instance on another host",
			stores:  []string{"h:20160 instance=pod-0"},
			targets: []string{"tikv h:20180", "tikv pod-0"},
			want:    []string{"pod-0"},
		}, {
			name:    "configured instance contradicts the status address",
			stores:  []string{"h:20160 instance=x status=h:20180"},
			targets: []string{"tikv h:20180", "tikv x"},
			want:    []string{"x"},
		}, {
			name:    "configured instance in another letter case",
			stores:  []string{"h:20160 instance=X"},
			targets: []string{"tikv x"},
			want:    []string{noTarget},
		}, {
			name:    "configured instance in two jobs",
			stores:  []string{"h:20160 instance=h:20180"},
			targets: []string{"a h:20180", "b h:20180"},
			want:    []string{ambiguous},
		}, {
			name:    "configured instance in two jobs and one is past",
			stores:  []string{"h:20160 instance=h:20180"},
			targets: []string{"a h:20180 past", "b h:20180"},
			want:    []string{"h:20180"},
		}, {
			name:    "same configured instance of two stores",
			stores:  []string{"a:1 instance=x", "b:1 instance=x"},
			targets: []string{"tikv x"},
			want:    []string{ambiguous, ambiguous},
		},
	})
}

// Two jobs scrape the same TiKV.
func TestMatchDuplicateJobs(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:    "same instance",
			stores:  []string{"h:20180"},
			targets: []string{"a h:20180", "b h:20180"},
			want:    []string{ambiguous},
		}, {
			name:    "same host",
			stores:  []string{"h:20160"},
			targets: []string{"a h:20180", "b h:20180"},
			want:    []string{ambiguous},
		}, {
			name:    "same instance and one is past",
			stores:  []string{"h:20160 status=h:20180"},
			targets: []string{"a h:20180", "b h:20180 past"},
			want:    []string{"h:20180"},
		}, {
			name:    "same host and one is past",
			stores:  []string{"h:20160"},
			targets: []string{"a h:20180 past", "b h:20180"},
			want:    []string{"h:20180"},
		},
	})
}

// Stores have moved, were replaced, or are down.
func TestMatchChangedStores(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:    "store has moved",
			stores:  []string{"new:20160 id=5"},
			targets: []string{"tikv old:20180 past", "tikv new:20180"},
			want:    []string{"new:20180"},
		}, {
			name:    "store was replaced at the same address",
			stores:  []string{"h:20160 id=9"},
			targets: []string{"tikv h:20180"},
			want:    []string{"h:20180"},
		}, {
			name:    "store is down",
			stores:  []string{"h:20160"},
			targets: []string{"tikv h:20180 past"},
			want:    []string{"h:20180"},
		},
	})
}

// The input is empty or malformed.
func TestMatchEdgeCases(t *testing.T) {
	testMatch(t, []matchCase{
		{
			name:   "no targets",
			stores: []string{"a:1"},
			want:   []string{noTarget},
		}, {
			name:    "no stores",
			targets: []string{"tikv a:1"},
		}, {
			name:    "malformed addresses",
			stores:  []string{":", "[", "::1", ""},
			targets: []string{"j :", "j [", " "},
			want:    []string{noTarget, noTarget, noTarget, noTarget},
		},
	})
}

// testMatch runs the cases and checks what must hold for every match.
func testMatch(t *testing.T, cases []matchCase) {
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			stores, targets := parseAll(parseStore, tc.stores), parseAll(parseTarget, tc.targets)

			matches := storematch.MatchStores(stores, targets)

			if got := matchedInstances(matches); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}

			for i, m := range matches {
				checkMatch(t, m, stores[i])
			}

			slices.Reverse(targets)
			if reversed := storematch.MatchStores(stores, targets); fmt.Sprint(reversed) != fmt.Sprint(matches) {
				t.Errorf("got %v for the targets in reverse order, want %v", reversed, matches)
			}
		})
	}
}

// checkMatch checks that the fields of a match do not contradict each other.
func checkMatch(t *testing.T, m storematch.Match, store storematch.Store) {
	t.Helper()

	decidedBy[m.Rule] = true
	if m.Store != store {
		t.Errorf("match of store %v, want store %v", m.Store, store)
	}
	if _, ok := m.Target(); ok && m.Ambiguous {
		t.Errorf("%v is ambiguous but has a target", m)
	}
	if len(m.Candidates) == 0 && m.Rule != "" {
		t.Errorf("%v has a rule but no candidates", m)
	}
	if len(m.Candidates) > 0 && !slices.Contains(storematch.RuleNames(), m.Rule) {
		t.Errorf("%v has candidates but no rule", m)
	}
}
