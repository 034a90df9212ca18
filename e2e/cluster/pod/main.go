// Command paifang-pod is what the pods of the tests run: there is no registry to pull other images from.
//
//	paifang-pod pause    sleeps until it is told to end: the sandbox of every pod
//	paifang-pod echo     answers HTTP with what it received, and ends without dropping a request
//	paifang-pod get URL  one GET, from inside a pod; prints status and body
//
// It is linked statically, so that an image of it needs nothing else.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds | log.LUTC)
	args := os.Args[1:]
	switch {
	case len(args) > 0 && args[0] == "pause":
		pause()
	case len(args) > 0 && args[0] == "echo":
		if err := echo(args[1:]); err != nil {
			log.Fatal(err)
		}
	case len(args) == 2 && args[0] == "get":
		if err := get(args[1]); err != nil {
			log.Fatal(err)
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: paifang-pod pause | echo [flags] | get URL")
		os.Exit(2)
	}
}

func told() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	return signals
}

// The first process of the pod's process namespace, so it collects orphans as well.
func pause() {
	end := told()
	children := make(chan os.Signal, 16)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		select {
		case <-end:
			return
		case <-children:
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
					break
				}
			}
		}
	}
}

// What the echo answers.
type answer struct {
	Pod     string              `json:"pod"`
	Name    string              `json:"name"`
	Method  string              `json:"method"`
	Host    string              `json:"host"`
	Path    string              `json:"path"`
	Query   map[string][]string `json:"query"`
	Headers map[string][]string `json:"headers"`
	Body    string              `json:"body"`
	Remote  string              `json:"remote"`
}

// The largest body that is echoed.
const maxBody = 1 << 20

func echo(args []string) error {
	flags := flag.NewFlagSet("echo", flag.ExitOnError)
	address := flags.String("listen", ":8080", "address to listen on")
	name := flags.String("name", os.Getenv("ECHO_NAME"), "name in every answer, to tell Deployments apart")
	lameDuck := flags.Duration("lame-duck", 3*time.Second, "after SIGTERM: how long new connections are still accepted, until every proxy has forgotten this pod")
	drain := flags.Duration("drain", 20*time.Second, "after the lame duck: how long requests may take to finish")
	if err := flags.Parse(args); err != nil {
		return err
	}
	pod := os.Getenv("POD_NAME")
	if pod == "" {
		pod, _ = os.Hostname()
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle(w, r, pod, *name)
	})}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	end := told()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.Printf("listening on %s", listener.Addr())
	select {
	case err := <-ended:
		return err
	case s := <-end:
		log.Printf("%s: accepting for another %s", s, *lameDuck)
	}
	time.Sleep(*lameDuck)
	log.Printf("finishing requests, for at most %s", *drain)
	limit, cancel := context.WithTimeout(context.Background(), *drain)
	defer cancel()
	if err := server.Shutdown(limit); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	log.Print("ended")
	return nil
}

// The query may ask for trouble: ?delay=250 (milliseconds, or a duration as in 2s), ?status=503.
func handle(w http.ResponseWriter, r *http.Request, pod, name string) {
	query := r.URL.Query()
	if wait, err := delay(query.Get("delay")); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	} else if wait > 0 {
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
			return
		}
	}
	status := http.StatusOK
	if text := query.Get("status"); text != "" {
		code, err := strconv.Atoi(text)
		if err != nil || code < 200 || code > 599 {
			http.Error(w, "status: takes 200 to 599", http.StatusBadRequest)
			return
		}
		status = code
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	text, err := json.Marshal(answer{
		Pod: pod, Name: name, Method: r.Method, Host: r.Host, Path: r.URL.EscapedPath(), Query: query,
		Headers: r.Header, Body: string(body), Remote: r.RemoteAddr,
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Pod", pod)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

func delay(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	if milliseconds, err := strconv.Atoi(text); err == nil {
		return time.Duration(milliseconds) * time.Millisecond, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("delay: takes milliseconds, or a duration as in 2s: %w", err)
	}
	return wait, nil
}

func get(url string) error {
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	fmt.Printf("%d\n%s", response.StatusCode, body)
	return nil
}
