// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// names are the host names of the tests, all of them on loopback. No other is looked up anywhere.
var names = &nameServer{known: map[string]bool{}}

// nameServer is a DNS server without a socket.
type nameServer struct {
	mu    sync.Mutex
	known map[string]bool
}

// set makes a name known, or unknown.
func (s *nameServer) set(name string, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[name+"."] = known
}

// dial is the resolver's way to the server.
func (s *nameServer) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer func() { _ = ours.Close() }()
		for s.answer(ours) == nil {
		}
	}()
	return theirs, nil
}

// answer reads one question as over TCP, with its length before it, and answers it.
func (s *nameServer) answer(conn net.Conn) error {
	buf := make([]byte, 2+512)
	n, err := conn.Read(buf)
	if err != nil || n < 2 {
		return errors.Join(err, errors.New("no question"))
	}
	var parser dnsmessage.Parser
	header, err := parser.Start(buf[2:n])
	if err != nil {
		return err
	}
	question, err := parser.Question()
	if err != nil {
		return err
	}
	header.Response = true
	s.mu.Lock()
	known := s.known[question.Name.String()]
	s.mu.Unlock()
	if !known {
		header.RCode = dnsmessage.RCodeNameError
	}
	message := dnsmessage.Message{Header: header, Questions: []dnsmessage.Question{question}}
	if known && question.Type == dnsmessage.TypeA {
		message.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	packed, err := message.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append([]byte{byte(len(packed) >> 8), byte(len(packed))}, packed...))
	return err
}

// newCertificate returns a certificate for 127.0.0.1 that signs itself, for servers and clients, and the files that it and
// its key are in.
func newCertificate(t *testing.T) (c tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = t.TempDir()+"/cert.pem", t.TempDir()+"/key.pem"
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	if err := errors.Join(os.WriteFile(certFile, certPEM, 0o600), os.WriteFile(keyFile, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return c, certFile, keyFile
}
