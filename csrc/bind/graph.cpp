// graph.cpp — the builders of plan/graph.h for the tracer: ids are ints, shapes are the sizes
// behind the batch.
#include "../plan/graph.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <initializer_list>

#include "../ops/activation.h"

namespace py = pybind11;

namespace gv::plan {
namespace {

Shape shape_of(const std::vector<index>& sizes) {
  Shape shape;
  if (sizes.size() > shape.sizes.size())
    throw std::invalid_argument("[trace] expected at most 3 axes behind the batch, got " +
                                std::to_string(sizes.size()));
  shape.rank = int(sizes.size());
  std::copy(sizes.begin(), sizes.end(), shape.sizes.begin());
  return shape;
}

std::vector<index> trailing(const Graph& g, NodeId id) {
  const Shape& s = g.node(id).shape;
  return {s.sizes.begin(), s.sizes.begin() + s.rank};
}

Op named(const std::string& name, std::initializer_list<Op> ops) {
  for (const Op op : ops)
    if (name == name_of(op)) return op;
  throw std::invalid_argument("[graph] expected the name of an operation, got " + name);
}

}  // namespace
}  // namespace gv::plan

void register_graph(py::module_& m) {
  using namespace gv::plan;
  py::class_<Graph>(m, "Graph", "What a forward does: nodes in order of use.")
      .def(py::init<>())
      .def("parameter", &Graph::add_parameter_info, py::arg("name"), py::arg("shape"), py::arg("trainable"))
      .def("buffer", &Graph::add_buffer_info, py::arg("name"), py::arg("size"))
      .def("input", [](Graph& g, const std::vector<gv::index>& s) { return g.input(shape_of(s)); })
      .def("linear", &Graph::linear)
      .def("matmul_parameter", &Graph::matmul_parameter)
      .def("matmul", &Graph::matmul)
      .def("binary", [](Graph& g, const std::string& op, NodeId a,
                        NodeId b) { return g.binary(named(op, {Op::add, Op::sub, Op::mul}), a, b); })
      .def("affine", &Graph::affine)
      .def("with_parameter",
           [](Graph& g, const std::string& op, NodeId x, int p, const std::string& called) {
             return g.with_parameter(named(op, {Op::add_parameter, Op::mul_parameter}), x, p, called);
           })
      .def("activation",
           [](Graph& g, NodeId x, const std::string& name, double alpha) {
             gv::Activation kind{};
             if (!gv::ops::activation_named(name.c_str(), kind))
               throw std::invalid_argument("[activation] expected a known activation, got " + name);
             return g.activation(x, kind, alpha);
           })
      .def("softmax", &Graph::softmax)
      .def("batchnorm", &Graph::batchnorm)
      .def("layernorm", &Graph::layernorm)
      .def("dropout", &Graph::dropout)
      .def("reshape",
           [](Graph& g, NodeId x, const std::vector<gv::index>& s) { return g.reshape(x, shape_of(s)); })
      .def("concatenate", &Graph::concatenate)
      .def("output", &Graph::output)
      .def("tap", &Graph::tap)
      .def("shape", &trailing)
      .def_property_readonly("nodes", [](const Graph& g) { return g.nodes().size(); })
      .def_property_readonly("outputs", [](const Graph& g) { return g.outputs(); });
}
