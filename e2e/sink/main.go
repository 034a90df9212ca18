// Command paifang-sink receives CloudEvents over HTTP as the official SDK reads them, and refuses what it finds invalid with 400: a missing id, type or
// source, a time that is none. Each event it takes is printed, one line of structured JSON.
//
//	paifang-sink [--listen 127.0.0.1:9002]
//
// Like Knative's event_display, but strict, and at an address of one's choice.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os/signal"
	"sync"
	"syscall"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9002", "address to listen on")
	flag.Parse()
	if err := receive(*listen); err != nil {
		log.Fatal(err)
	}
}

func receive(address string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	client, err := cloudevents.NewClientHTTP(cehttp.WithListener(listener))
	if err != nil {
		return err
	}
	end, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	log.Printf("listening on %s", listener.Addr())
	var printing sync.Mutex
	return client.StartReceiver(end, func(event cloudevents.Event) cloudevents.Result {
		if err := event.Validate(); err != nil {
			return cloudevents.NewHTTPResult(http.StatusBadRequest, "%v", err)
		}
		text, err := json.Marshal(event)
		if err != nil {
			return cloudevents.NewHTTPResult(http.StatusBadRequest, "%v", err)
		}
		printing.Lock()
		defer printing.Unlock()
		_, err = fmt.Printf("%s\n", text)
		return err
	})
}
